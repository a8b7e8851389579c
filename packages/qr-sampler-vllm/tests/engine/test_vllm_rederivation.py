# SPDX-License-Identifier: Apache-2.0
"""Real engines of both runners: transformers derive every token again, and find what is changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="needs vLLM, which the vllm session installs")
pytest.importorskip("transformers")

from qr_sampler_cli.audit.auditor import audit_runs
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.audit.rederivation.rung import ModelUnderAudit
from qr_sampler_cli.audit.rederivation.teacher_forcing import RescoringModel

Fields = dict[str, Any]

KINDS: tuple[Fields, ...] = (
    {"qr_top_k": 40, "qr_top_p": 0.9},
    {"qr_min_p": 0.05, "qr_truncate_first": True},
    {"qr_typical_p": 0.9},
    {"qr_top_n_sigma": 1.5},
    {"qr_temperature_strategy": "edt"},
    {"qr_temperature_strategy": "varentropy", "qr_varentropy_drift_weight": 0.2},
    {"qr_temperature_strategy": "dynatemp", "qr_top_p": 0.95},
    {"qr_signal_amplifier_type": "bit_zscore"},
    {"qr_signal_amplifier_type": "uniform53", "qr_sample_count": 8},
)
"""What requests that are decoded together ask for: filters, adaptive temperatures, amplifiers."""

TOKENS = 40


@pytest.fixture(scope="module", params=["v1", "v2"])
def ledger(request: pytest.FixtureRequest, offline_engine: Callable[[str], Any]) -> Path:
    """The ledger of a run of each runner, with its prompts beside it."""
    engine = offline_engine(request.param)
    keys = [f"request {index}" for index in range(len(KINDS))]
    task = {
        "prompts": ["Light is", "When I", "A photon that"] * 3,
        "extra_args": [
            {"qr_request_key": key, **kind} for key, kind in zip(keys, KINDS, strict=True)
        ],
        "params": {key: {"max_tokens": TOKENS, "ignore_eos": True} for key in keys},
    }
    engine.result(
        engine.generate_script,
        task,
        {"QR_LEDGER_PROMPTS": "true", "QR_SAMPLE_COUNT": "1024", "QR_MAX_KS_DISTANCE": "1"},
    )
    (prompts,) = engine.ledger.glob("*.prompts.jsonl")
    return Path(prompts).with_name(prompts.name.replace(".prompts", ""))


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ModelUnderAudit:
    """The model that the engines had."""
    return ModelUnderAudit(model=RescoringModel(tiny_model), dtype="float32", directory=tiny_model)


def rung_of(path: Path, model: ModelUnderAudit) -> Any:
    (run,) = audit_runs(ledgers_of([path]), under_audit=model)
    return run.rungs[5]


def changed(ledger: Path, folder: Path, edit: Callable[[list[Fields]], None]) -> Path:
    """Returns a copy of a ledger, its chain computed anew after *edit* has changed its lines."""
    lines = [json.loads(line) for line in ledger.read_bytes().splitlines()]
    edit(lines)
    path, prev = folder / ledger.name, "0" * 64
    with path.open("wb") as file:
        for line in lines:
            line["prev"] = prev
            if line["kind"] == "close":
                line["head"] = prev
            told = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode()
            prev = hashlib.sha256(told).hexdigest()
            file.write(told + b"\n")
    prompts = ledger.name.replace(".jsonl", ".prompts.jsonl")
    shutil.copy(ledger.with_name(prompts), folder / prompts)
    return path


def test_every_token_is_derived_again(ledger: Path, model: ModelUnderAudit) -> None:
    rung = rung_of(ledger, model)
    assert (rung.status, rung.failures, rung.unsaid) == ("holds", [], {})
    assert rung.figures["tokens"] == TOKENS * len(KINDS)
    assert rung.figures["beyond_tolerance"] == 0
    # Of two tokens that rounding exchanges, each has a probability of its own.
    assert rung.figures["largest_distance_of_u"] < 0.01
    assert rung.figures["entropy_difference_nats"]["max"] < 1e-4


def test_one_forged_u_and_one_swapped_token_are_found(
    ledger: Path, model: ModelUnderAudit, tmp_path: Path
) -> None:
    def forge(lines: list[Fields]) -> None:
        token = next(line for line in lines if line.get("position") == 7 and line["rank"])
        token["u"] = token["u"] / 2 if token["u"] > 0.5 else (1.0 + token["u"]) / 2

    rung = rung_of(changed(ledger, tmp_path, forge), model)
    assert rung.failed == 1
    assert "u lies" in rung.failures[0].what

    def swap(lines: list[Fields]) -> None:
        token = next(line for line in lines if line.get("position") == TOKENS - 1)
        token["token_id"] = (token["token_id"] + 1) % 2048

    assert rung_of(changed(ledger, tmp_path, swap), model).failed == 1


def test_another_checkpoint_is_found(ledger: Path, model: ModelUnderAudit, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(model.directory, dtype=torch.float32)
    with torch.no_grad():
        for weights in other.parameters():
            weights.mul_(1.01)
    other.save_pretrained(tmp_path)
    under_audit = ModelUnderAudit(model=RescoringModel(tmp_path), dtype="float32")
    rung = rung_of(ledger, under_audit)
    assert "the model, the prompts or the texts are others" in rung.failures[0].what


def test_another_prompt_is_found(ledger: Path, model: ModelUnderAudit, tmp_path: Path) -> None:
    sidecar = ledger.with_name(ledger.name.replace(".jsonl", ".prompts.jsonl"))
    lines = [json.loads(line) for line in sidecar.read_text().splitlines()]
    for line in lines[1:]:
        line["token_ids"][0] += 1
    prompts = tmp_path / "prompts"
    prompts.write_text("".join(f"{json.dumps(line)}\n" for line in lines[1:]))
    under_audit = ModelUnderAudit(model=model.model, dtype="float32", prompts=prompts)
    # The digests in the ledger show it,
    rung = rung_of(ledger, under_audit)
    assert rung.failed == len(KINDS)
    assert "has another digest" in rung.failures[0].what

    def without(told: list[Fields]) -> None:
        for line in told:
            if line["kind"] == "sequence":
                line["prompt_digest"] = ""

    # and without them the tokens do.
    rung = rung_of(changed(ledger, tmp_path, without), under_audit)
    assert rung.failed > 0.9 * rung.figures["tokens"]
