# SPDX-License-Identifier: Apache-2.0
"""Logits of whole sequences are those of transformers, however they are cut."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.findings import Places, ladder
from qr_sampler_cli.audit.rederivation import teacher_forcing
from qr_sampler_cli.audit.rederivation.model_files import compare_files
from qr_sampler_cli.main import app

HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_torch = pytest.mark.skipif(
    not HAS_TORCH, reason="needs torch and transformers, which the vllm session installs"
)

TEXTS = ([5, 6, 7, 8, 9, 10, 11], [1, 2], [90, 3, 90, 4, 90])


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.Qwen2Config(vocab_size=100, **sizes, **heads)
    transformers.set_seed(1)
    transformers.Qwen2ForCausalLM(config).save_pretrained(place)
    return place


def whole(directory: Path, text: list[int]) -> Any:
    """Returns all logits of a text, in one go."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.inference_mode():
        return model(input_ids=torch.tensor([text])).logits[0].numpy()


@needs_torch
@pytest.mark.parametrize("most", [2**24, 900, 300])
def test_slices_are_parts_of_the_whole(
    directory: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_forcing, "_MOST_LOGITS", most)
    model = teacher_forcing.RescoringModel(directory)
    assert model.vocab_size == 100
    first = [2, 0, 1]
    found: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    for line, begin, logits in model.logits(TEXTS, first):
        assert begin == first[line] + sum(map(len, found[line]))
        assert logits.dtype == np.float32
        assert logits.size <= most
        found[line].append(logits)
    for line, text in enumerate(TEXTS):
        expected = whole(directory, text)[first[line] :]
        np.testing.assert_allclose(np.concatenate(found[line]), expected, atol=2e-6)


@needs_torch
def test_other_data_types_are_coarser(directory: Path) -> None:
    model = teacher_forcing.RescoringModel(directory, dtype="bfloat16")
    (part,) = model.logits([TEXTS[0]], [0])
    apart = np.abs(part.logits - whole(directory, TEXTS[0])).max()
    assert 1e-5 < apart < 0.05


@needs_torch
def test_directories_without_a_model_are_refused(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        teacher_forcing.RescoringModel(tmp_path)
    config = (directory / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ConfigError, match="it cannot be loaded"):
        teacher_forcing.RescoringModel(tmp_path)
    weights = (directory / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ConfigError, match="it cannot be loaded"):
        teacher_forcing.RescoringModel(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "telepathy"}')
    with pytest.raises(ConfigError, match="it cannot be loaded"):
        teacher_forcing.RescoringModel(tmp_path)


@needs_torch
def test_absent_devices_are_refused(directory: Path) -> None:
    import torch

    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ConfigError, match=f"--device={absent}: not present here"):
        teacher_forcing.RescoringModel(directory, device=absent)


def documented() -> list[str]:
    """Returns the words of the command on the page of the ledger; there, or as they are meant."""
    page = Path(__file__).resolve().parents[5] / "docs" / "ledger.md"
    told = "qr-sampler audit LEDGERS --model MODEL --prompts PROMPTS"
    if page.exists():
        (told,) = re.findall(r"### Derived again\n+```bash\n(.*)\n```", page.read_text("utf-8"))
    return told.split()


@needs_torch
def test_the_command_derives_a_ledger_again(directory: Path, tmp_path: Path, toys: Any) -> None:
    model = teacher_forcing.RescoringModel(directory)

    class Torch(toys.model):  # type: ignore[misc, name-defined]
        def row(self, ids: Any) -> Any:
            (part,) = model.logits([ids], [len(ids) - 1])
            # Random weights are hardly decided.
            return part.logits[0]

    toy = Torch(vocab_size=100)
    ledger = toys.generated(tmp_path, toys.filters, answers=1, tokens=8, model=toy)
    places = {"LEDGERS": ledger.parent, "MODEL": directory, "PROMPTS": tmp_path / "prompts"}
    program, command, *words = documented()
    assert (program, command) == ("qr-sampler", "audit")
    result = invoke(*(places.get(word, word) for word in words), "--json")
    assert result.exit_code == 0, result.output
    rung = json.loads(result.stdout)["runs"][0]["rungs"][5]
    assert rung["status"] == "holds"
    assert rung["figures"]["tokens"] == len(toys.tokens_of(toys.lines_of(ledger)))
    assert rung["figures"]["beyond_tolerance"] == 0
    assert "loading" in result.stderr


@pytest.mark.skipif(HAS_TORCH, reason="torch and transformers are here")
def test_what_is_missing_is_named(tmp_path: Path, toys: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    result = invoke(toys.generated(tmp_path, tokens=2), f"--model={tmp_path}")
    assert result.exit_code == 2
    assert "audit --model needs torch, which is not installed" in result.stderr
    assert "qr-sampler[rescore]" in result.stderr


def test_prompts_are_for_a_model(tmp_path: Path, toys: Any) -> None:
    ledger = toys.generated(tmp_path, tokens=2)
    result = invoke(ledger, f"--prompts={tmp_path / 'prompts'}")
    assert result.exit_code == 2
    assert "prompts are for --model, which is not given" in result.stderr
    assert "no config.json" in invoke(ledger, f"--model={tmp_path}").stderr


def test_files_of_a_model_are_compared(tmp_path: Path) -> None:
    recorded = {}
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text(name)
        recorded[name] = hashlib.sha256(name.encode()).hexdigest()
    rung = ladder(Places())[5]
    compare_files(recorded, tmp_path, rung, 0)
    assert (rung.failures, rung.notes) == ([], [])
    (tmp_path / "model.safetensors").write_text("another")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "more.safetensors").write_text("more")
    compare_files(recorded, tmp_path, rung, 0)
    assert [each.what for each in rung.failures] == [
        "the file 'model.safetensors' of the model is not that of the run",
        "the file 'more.safetensors' of the model was not there in the run",
    ]
    assert rung.notes == ["the file 'tokenizer.json' of the model is not here"]
