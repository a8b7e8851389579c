# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler health run``: good sources pass, and broken ones are named by what sees them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qr_sampler.entropy import SourceLimits
from qr_sampler.health import HealthMonitor
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_cli.health.examination import HealthExamination
from qr_sampler_cli.main import app


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["health", "run", *arguments])
    return result.exit_code, result.output


def test_good_source_passes_every_test() -> None:
    status, text = run("system", "--draws", "20")
    assert status == 0
    assert "20 draws of 10,240 bytes" in text
    assert "no test failed" in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_biased_control_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_MOCK_UNIFORM_MEAN", "128.5")
    monkeypatch.setenv("QR_MOCK_UNIFORM_SEED", "3")
    assert run("mock_uniform", "--draws", "50")[0] == 0


@pytest.fixture
def counting_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device that counts, behind a pipe."""
    path = tmp_path / "device"
    os.mkfifo(path)
    ended = threading.Event()

    def deliver() -> None:
        with path.open("wb", buffering=0) as pipe:
            try:
                while not ended.is_set():
                    pipe.write(bytes(range(256)) * 4)
            except BrokenPipeError:
                return

    writer = threading.Thread(target=deliver, daemon=True)
    writer.start()
    monkeypatch.setenv("QR_DEVICE_FILE_PATH", str(path))
    yield
    ended.set()
    writer.join(10)


@pytest.mark.usefixtures("counting_device")
def test_counting_device_fails_and_says_by_which_test() -> None:
    status, text = run("device_file", "--draws", "3", "--block-bytes", "1024", "--json")
    assert status == 1
    # Progress stands on standard error, which the runner mixes in.
    found = json.loads(text[text.index("{") :])
    assert found["min_entropy"] == 6.0
    states = {test["test"]: test["state"] for test in found["tests"]}
    assert states["differences"] == "failed"
    assert states["repetition_count"] == states["bit_planes"] == "ok"
    # Counted in bytes it comes around within a draw, too.
    assert "repeated_windows" in found["failed"]


def test_the_deployment_says_what_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    def assumed(*options: str) -> float:
        _, text = run("timing_noise", "--draws", "1", "--block-bytes", "8", "--json", *options)
        found: float = json.loads(text[text.index("{") :])["min_entropy"]
        return found

    of_itself = assumed()
    monkeypatch.setenv("QR_HEALTH_MIN_ENTROPY", "0.75")
    assert assumed() == 0.75 != of_itself
    assert assumed("--min-entropy", "2") == 2.0
    monkeypatch.setenv("QR_HEALTH", "false")
    assert assumed() == 0.75


def test_impossible_assumption_is_refused() -> None:
    status, text = run("system", "--min-entropy", "9")
    assert status == 2
    assert "--min-entropy" in text


def test_tests_go_on_after_a_failure_and_the_quota_is_kept() -> None:
    waits: list[float] = []

    class Limited(ConstantEntropySource):
        limits = SourceLimits(max_requests_per_minute=60)

    source = Limited(7)
    examination = HealthExamination(source, HealthMonitor(), 600, sleep=waits.append)
    seen: list[int] = []
    examination.run(3, lambda done, _: seen.append(done))
    assert seen == [1, 2, 3]
    assert examination.failure is not None
    assert {test.failed_draws for test in examination.tests.values()} == {2, 3}
    assert sum(waits) > 1.5
