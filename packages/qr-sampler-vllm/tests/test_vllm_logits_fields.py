# SPDX-License-Identifier: Apache-2.0
"""What the ledger says of an engine and of its requests, beside their options."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler.host import NumpyLogits
from qr_sampler.records.long_values import MOST_IDS
from qr_sampler.records.reader import read_ledger
from qr_sampler.testing import chained_lines
from qr_sampler_vllm.engine import session
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.requests.logits_fields import logits_fields_of
from qr_sampler_vllm.testing import engine_config, sampling_params


def test_an_ordinary_request_has_none() -> None:
    assert logits_fields_of(sampling_params()) == {}


MANY = list(reversed(range(MOST_IDS + 1)))
PENALTIES = {"repetition_penalty": 1.0, "frequency_penalty": 0.5, "presence_penalty": 0.0}


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [
        ({"frequency_penalty": 0.5}, PENALTIES),
        ({"logit_bias": {7: 2, 3: -100.0}}, {"logit_bias": {"7": 2.0, "3": -100.0}}),
        ({"allowed_token_ids": [5, 3]}, {"allowed_token_ids": [5, 3]}),
        ({"bad_words_token_ids": [[1, 2], [3]]}, {"bad_words": [[1, 2], [3]]}),
        ({"min_tokens": 4}, {"min_tokens": 4}),
    ],
)
def test_fields_that_are_not_neutral_are_recorded(
    asked: dict[str, Any], recorded: dict[str, Any]
) -> None:
    found = logits_fields_of(sampling_params(**asked))
    assert found == recorded
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("field", "asked", "value"),
    [
        ("allowed_token_ids", {"allowed_token_ids": MANY}, MANY),
        ("logit_bias", {"logit_bias": dict.fromkeys(MANY, 2)}, {str(one): 2.0 for one in MANY}),
        ("bad_words", {"bad_words_token_ids": [MANY[:9], MANY[9:]]}, [MANY[:9], MANY[9:]]),
    ],
)
def test_of_many_tokens_there_is_a_digest(field: str, asked: dict[str, Any], value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    assert logits_fields_of(sampling_params(**asked))[field] == {
        "count": len(MANY),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def test_a_grammar_is_recorded_as_a_digest() -> None:
    first, same, other = (
        logits_fields_of(sampling_params(structured_outputs=SimpleNamespace(**wanted)))
        for wanted in ({"regex": "a \ud800"}, {"regex": "a \ud800", "json": None}, {"regex": "b"})
    )
    assert first == same != other
    assert len(bytes.fromhex(first["structured_outputs"]["sha256"])) == 32


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> EngineSession:
    monkeypatch.setenv("QR_LEDGER_DIR", str(tmp_path))
    monkeypatch.setattr(session, "TensorLogits", lambda most_rows: NumpyLogits())
    monkeypatch.setattr(session, "warm_up", lambda **_: None)
    config = engine_config(data_parallel_rank=1)
    config.model_config.dtype = "torch.bfloat16"
    config.compute_hash = lambda: "0123abcd"
    return EngineSession(config, "Model Runner V1")


def test_the_engine_describes_itself_and_what_a_request_asked_for(
    engine: EngineSession, tmp_path: Path
) -> None:
    asked = sampling_params(
        stop_token_ids=(7, 5),
        eos_token_id=9,
        max_tokens=12,
        presence_penalty=1.5,
        extra_args={"qr_request_key": "mine", "qr_top_k": 3, "qr_sample_count": 64},
    )
    sequence = engine.admit(asked, 17)
    assert sequence is not None
    sequence.failure = "no entropy"
    outcome = engine.without_entropy(None, 0, sequence, 0)
    engine.record(sequence.sampled(outcome))
    engine.record(sequence.end("closed"))
    engine.close()
    (file,) = tmp_path.glob("*.jsonl")
    assert chained_lines(file)
    genesis, _, startup, told, forced, end, _ = read_ledger(file)
    assert (startup["reason"], startup["block_bytes"]) == ("startup_test", 1024)
    assert genesis["host"] == {
        "runner": "Model Runner V1",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "data_parallel_rank": 1,
        "dtype": "bfloat16",
        "quantization": None,
        "device": "cpu",
        "config_digest": "0123abcd",
    }
    assert {"qr-sampler-core", "qr-sampler-vllm"} <= genesis["files"].keys()
    assert [source["name"] for source in genesis["sources"]] == ["system"]
    assert (told["request_key"], told["prompt_tokens"]) == ("mine", 17)
    assert (told["options"]["top_k"], told["options"]["sample_count"]) == (3, 64)
    assert told["fields"]["presence_penalty"] == 1.5
    assert told["stop"] == {
        "token_ids": [5, 7, 9],
        "max_tokens": 12,
        "max_length": 64,
        "min_tokens": 0,
        "stop_strings": False,
    }
    assert (forced["kind"], forced["request_key"], forced["token_id"]) == ("forced", "mine", 9)
    assert (end["kind"], end["reason"], end["tokens"]) == ("end", "forced", 1)
