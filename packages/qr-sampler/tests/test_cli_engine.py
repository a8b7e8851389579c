# SPDX-License-Identifier: Apache-2.0
"""The commands around real vLLM, in processes of their own; skipped where it is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="needs vLLM; the nox session `vllm` has it")
pytest.importorskip("qr_sampler_vllm")
pytest.importorskip("qr_sampler_grpc")

STEPS = 20
"""Enough for a model that loads; what it says does not matter here."""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QR_")}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the demo, with its model in place but hardly trained."""
    directory = tmp_path_factory.mktemp("demo")
    model = directory / "tiny-model"
    result = run("qr_sampler_cli", "tiny-model", str(model), f"--steps={STEPS}")
    assert result.returncode == 0, result.stderr
    return directory


def test_generate_accounts_for_every_token_of_a_real_engine(place: Path, tmp_path: Path) -> None:
    records = tmp_path / "run.jsonl"
    result = run(
        "qr_sampler_cli", "generate", "The light", "When I", f"--model={place / 'tiny-model'}",
        "--max-tokens=6", "--top-k=40", "--json", f"--records={records}", "--require-primary",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["discrepancies"] == []
    assert document["summary"]["tokens"] == document["summary"]["primary_tokens"] > 0
    lines = [json.loads(line) for line in records.read_text("utf-8").splitlines()]
    assert lines[0]["kind"] == "genesis"
    tokens = [line for line in lines if line["kind"] == "token"]
    assert len(tokens) == document["summary"]["tokens"]
    assert all(line["candidates"] <= 40 for line in tokens)
    for completion in document["completions"]:
        emitted = [token["token_id"] for token in completion["tokens"]]
        assert emitted == [token["record"]["token_id"] for token in completion["tokens"]]
    audit = run("qr_sampler_cli", "audit", str(records), "--json")
    assert audit.returncode == 0, audit.stdout
    rungs = json.loads(audit.stdout)["runs"][0]["rungs"]
    assert [rung["status"] for rung in rungs[2:4]] == ["holds", "holds"]


def test_dead_server_is_flagged_fallback_and_not_an_outage(place: Path) -> None:
    result = run(
        "qr_sampler_cli", "generate", "The light", f"--model={place / 'tiny-model'}",
        "--max-tokens=2", "--source=quantum_grpc", "--require-primary",
        # Nothing listens on the discard port of the loopback interface.
        QR_GRPC_SERVER_ADDRESS="127.0.0.1:9",
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    assert "0.0 % from quantum_grpc | 100.0 % fallback" in result.stdout.splitlines()[-1]
    assert "did not come from quantum_grpc" in result.stderr


def test_demo_takes_every_token_from_the_server(place: Path) -> None:
    result = run(
        "qr_sampler_cli.demo", f"--training-steps={STEPS}", "--max-tokens=4",
        QR_DEMO_DIR=str(place),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "reused" in result.stderr
    *_, named, summary = result.stdout.splitlines()
    assert "100.0 % from quantum_grpc | 0.0 % fallback" in summary
    records = Path(named.removeprefix("records: "))
    lines = [json.loads(line) for line in records.read_text("utf-8").splitlines()]
    draws = [line for line in lines if line["kind"] == "draw"]
    assert draws
    assert {line["source_distribution"] for line in draws} == {"qr-sampler-grpc"}
    # The answer was asked for after the logits were complete, on one clock, and the server was told
    # of the tokens that it was going to decide.
    audit = run("qr_sampler_cli", "audit", str(records), "--json")
    assert audit.returncode == 0, audit.stdout
    rungs = json.loads(audit.stdout)["runs"][0]["rungs"]
    assert [rung["status"] for rung in rungs[1:4]] == ["holds", "holds", "holds"]
    assert all(line["commitment"] and line["echo_verified"] for line in draws)
