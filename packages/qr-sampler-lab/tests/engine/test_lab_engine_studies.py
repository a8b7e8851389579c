# SPDX-License-Identifier: Apache-2.0
"""The shipped protocols on real vLLM with the tiny model, one command each."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler_cli.main import app

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model: that of ``QR_TINY_MODEL_DIR``, or a new one."""
    known = os.environ.get("QR_TINY_MODEL_DIR")
    if known:
        return Path(known)
    directory = tmp_path_factory.mktemp("model") / "tiny"
    # What it says does not matter here.
    command("tiny-model", directory, "--steps", "20")
    return directory


@pytest.fixture(autouse=True)
def _settings_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the operator's own settings, which a study would refuse."""
    for name in os.environ:
        if name.startswith("QR_") and name != "QR_TINY_MODEL_DIR":
            monkeypatch.delenv(name)


def command(*arguments: object) -> str:
    """Runs a command of ``qr-sampler`` in this process and returns what it prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def experiment(*arguments: object) -> str:
    """Runs a command of ``qr-sampler experiment``."""
    return command("experiment", *arguments)


def run(study: Path) -> None:
    """Carries a study out in a process of its own, with whose end its ledger is closed."""
    command = [sys.executable, "-m", "qr_sampler_cli", "experiment", "run", str(study)]
    done = subprocess.run(
        [*command, "--no-anchors"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        # The model is tiny: threads that wait for each other would take most of the time.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Blocks, tokens an answer, and what else is smaller than in the shipped protocol.
SMALL: dict[str, dict[str, int]] = {
    "null-control": {"blocks": 10, "tokens_per_request": 16},
    "known-effect": {"blocks": 10, "tokens_per_request": 16},
    "tripolar": {"blocks": 1, "requests_per_session": 2, "tokens_per_request": 16},
    "block-length": {"blocks": 10, "tokens_per_request": 16},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_shipped_protocol_runs_on_vllm(name: str, tiny_model: Path, tmp_path: Path) -> None:
    figures = carried_out(name, tiny_model, tmp_path)
    primary = figures["primary"]
    if name == "known-effect":
        # Ten times the bias: 1.369 is 12.2 standard errors of 160 tokens an arm.
        assert primary["found"]
        assert primary["estimate"] == pytest.approx(1.369, abs=6.5 * math.sqrt(2 / 160))
    if name == "null-control":
        # Probability of a greater score: below 1e-9.
        assert abs(primary["score"]) < 6.5
    if name == "block-length":
        assert figures["block_lengths"]["log_likelihood_ratio"] > 0


def carried_out(name: str, model: Path, directory: Path) -> dict[str, Any]:
    """Makes a study of a shipped protocol, smaller and with ten times its bias; its figures."""
    study = directory / name
    experiment("new", study, "--from", name)
    protocol = study / "PROTOCOL.yaml"
    text = protocol.read_text().replace("127.6", "128.5").replace("path: model", f"path: {model}")
    for key, value in SMALL[name].items():
        start = text.index(f"{key}: ") + len(key) + 2
        end = min(text.index(mark, start) for mark in ",}" if mark in text[start:])
        text = text[:start] + str(value) + text[end:]
    protocol.write_text(text)
    experiment("seal", study, "--no-drand")
    run(study)
    experiment("unblind", study, "--yes")
    experiment("report", study)
    experiment("bundle", study, "--to", directory / "bundle", "--no-text")
    told = json.loads(experiment("verify", directory / "bundle", "--json"))
    assert told["verdict"] != "fails", told
    report: dict[str, Any] = json.loads((study / "report" / "report.json").read_text())
    return report["figures"]
