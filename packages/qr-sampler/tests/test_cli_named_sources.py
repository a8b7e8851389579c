# SPDX-License-Identifier: Apache-2.0
"""Commands that take the name of a source take that of a source of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qr_sampler import Settings
from qr_sampler_cli.doctor.deployment import load_settings
from qr_sampler_cli.doctor.sources import source_findings
from qr_sampler_cli.main import app


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QR_SOURCES", "left=prng,right=prng")
    monkeypatch.setenv("QR_PRNG_SEED", "7")


def test_health_is_examined_by_name() -> None:
    result = CliRunner().invoke(app, ["health", "run", "left", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["source"] == "left"


def test_a_baseline_is_measured_by_name(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    options = ["--blocks=30", "--block-bytes=64", f"--output={file}"]
    result = CliRunner().invoke(app, ["baseline", "--source=left", *options])
    assert result.exit_code == 0, result.output
    assert json.loads(file.read_text("utf-8"))["source"] == "left"


def test_the_doctor_examines_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "left")
    monkeypatch.setenv("QR_REQUEST_ENTROPY_SOURCES", "right")
    settings = Settings.load(fallback_mode="end_request")
    findings = list(source_findings(settings, sequences=None, drafts=0, probe=True))
    assert {finding.check for finding in findings} == {"left", "right"}
    told = [finding.found for finding in findings if "just-in-time class P" in finding.found]
    assert len(told) == 2
    assert all(message.startswith("of the kind prng from qr-entropy-sources") for message in told)


def test_the_doctor_repeats_why_a_declaration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_SOURCES", "left=prg")
    settings = Settings.load(entropy_source_type="left", fallback_mode="end_request")
    (finding,) = source_findings(settings, sequences=None, drafts=0, probe=False)
    assert "QR_SOURCES: left: no kind of source is called 'prg'; did you mean" in finding.found


def test_the_doctor_knows_a_misspelt_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_SOURCES_FILES", "sources.toml")
    _, findings = load_settings()
    (typo,) = [one for one in findings if "QR_SOURCES_FILES" in one.found]
    assert "QR_SOURCES_FILE?" in typo.remedy
