# SPDX-License-Identifier: Apache-2.0
"""Latency profiles are made of recorded draws, and make shams that are told from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_entropy_sources.latency_profile import LatencyProfile
from qr_entropy_sources.sham import ShamSource
from qr_sampler.errors import ConfigError
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.files import ledgers_in
from qr_sampler.settings import Settings
from qr_sampler.testing import ToyHost
from qr_sampler_lab.commands.experiment import experiment
from qr_sampler_lab.experiments.running.recorded_latency import FEWEST_DRAWS, latency_profile


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a run with draws of two sizes, and fewer of a third."""
    directory = tmp_path_factory.mktemp("ledgers")
    settings = Settings(ledger_dir=directory, sample_count=128)
    host = ToyHost(SamplingSession(EngineFacts(engine="toy", model="toy"), settings))
    for requests, steps in ((1, FEWEST_DRAWS + 20), (2, FEWEST_DRAWS), (3, 5)):
        for _ in range(steps):
            for _ in range(requests):
                host.add(1)
            host.step()
    host.close()
    return directory


def draws_in(directory: Path) -> list[dict[str, Any]]:
    (path,) = ledgers_in(directory)
    lines = map(json.loads, path.read_bytes().splitlines())
    return [line for line in lines if line["kind"] == "draw"]


def test_a_profile_is_what_was_recorded(ledgers: Path) -> None:
    profile = latency_profile(ledgers_in(ledgers), "system")
    assert [series.bytes for series in profile.sizes] == [128, 256]
    for series in profile.sizes:
        recorded = [
            draw["t_received_ns"] - draw["t_request_ns"]
            for draw in draws_in(ledgers)
            if draw["bytes"] == series.bytes
        ]
        assert list(series.latencies_ns) == recorded
    assert len(profile.heads) == 1


def test_few_draws_make_no_profile(ledgers: Path) -> None:
    with pytest.raises(ConfigError, match="'mock_uniform' has at most 0 draws"):
        latency_profile(ledgers_in(ledgers), "mock_uniform")
    with pytest.raises(ConfigError, match="cannot read"):
        latency_profile([ledgers / "none.jsonl"], "system")


def test_a_draw_of_a_fallback_is_not_the_devices(tmp_path: Path) -> None:
    line = {
        "kind": "draw",
        "source": "system",
        "fallback": True,
        "bytes": 8,
        "requests": 1,
        "t_request_ns": 0,
        "t_received_ns": 5,
    }
    odd = [{"fallback": False, "t_received_ns": "5"}, {"fallback": False, "requests": 2}]
    path = tmp_path / "ledger.jsonl"
    lines = [line] * FEWEST_DRAWS + [{**line, **change} for change in odd] * FEWEST_DRAWS
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(ConfigError, match="at most 0 draws"):
        latency_profile([path], "system")


def test_the_command_makes_what_the_sham_reads(
    ledgers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "profile.json"
    arguments = ["latency-profile", str(ledgers), "--source", "system", "--output", str(output)]
    result = CliRunner().invoke(experiment, arguments)
    assert result.exit_code == 0, result.output
    assert "128 bytes: 120 draws, median" in result.output
    monkeypatch.setenv("QR_SHAM_PROFILE", str(output))
    sham = ShamSource.from_environment()
    assert sham.profile == LatencyProfile.read(output)[0]
    assert len(sham.draw(128).data) == 128
    again = CliRunner().invoke(experiment, arguments)
    assert again.exit_code == 2
    assert "cannot be written" in again.output
