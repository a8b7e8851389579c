# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler baseline``: the file, the figures on the screen, and every refusal."""

from __future__ import annotations

import io
import os
import re
import shlex
import statistics
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qr_entropy_sources.mock_uniform import MockUniformSource
from qr_sampler import (
    AMPLIFIERS,
    Baseline,
    EntropySource,
    EntropyUnavailableError,
    Settings,
    check_components,
)
from qr_sampler_cli.baseline_command import DEFAULT_BLOCKS
from qr_sampler_cli.consoles import progress_console
from qr_sampler_cli.main import app

SHORT = ("--blocks=30", "--block-bytes=64")


@pytest.fixture(autouse=True)
def _clean_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("QR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("QR_MOCK_UNIFORM_SEED", "5")
    monkeypatch.chdir(tmp_path)


def measure(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["baseline", "--output=b.json", *arguments])


def test_figures_are_those_of_the_bytes() -> None:
    result = measure("--source=mock_uniform", *SHORT)
    assert result.exit_code == 0, result.stderr
    baseline = Baseline.load(Path("b.json"))
    data = MockUniformSource(seed=5).get_random_bytes(30 * 64)
    blocks = [data[start : start + 64] for start in range(0, len(data), 64)]
    assert (baseline.blocks, baseline.block_bytes) == (30, 64)
    assert baseline.block_sums == tuple(sorted(map(sum, blocks)))
    shown = dict(re.split(r"\s{2,}|(?<=factor) ", line)[:2] for line in lines(result))
    assert shown["source"].startswith("mock_uniform (qr-entropy-sources ")
    assert shown["blocks"] == "30 of 64 bytes"
    assert shown["byte mean"] == f"{statistics.fmean(data):.6f} (ideal 127.5)"
    assert shown["byte sd"] == f"{statistics.pstdev(data):.6f} (ideal 73.900271)"
    ones = sum(byte.bit_count() for byte in data) / (8 * len(data))
    assert shown["ones"] == f"{ones:.8f} (ideal 0.5)"
    factor = 64 * statistics.pvariance(data) / statistics.variance(map(sum, blocks))
    assert shown["byte correlation factor"] == f"{factor:.4f} (ideal 1)"
    assert shown["calibration error"] == "0.1 (QR_MAX_KS_DISTANCE is 0.005)"
    assert shown["digest"] == baseline.digest


def lines(result: Result) -> list[str]:
    """The figures, without the last step."""
    return result.stdout.split("to use it")[0].splitlines()


def test_the_next_step_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    result = measure("--source=mock_uniform", *SHORT)
    exports = re.findall(r"^  export (\w+)=(.*)$", result.stdout, flags=re.MULTILINE)
    assert [name for name, _ in exports] == [
        "QR_BASELINE_FILE",
        "QR_ENTROPY_SOURCE_TYPE",
        "QR_SAMPLE_COUNT",
    ]
    for name, value in exports:
        (word,) = shlex.split(value)
        monkeypatch.setenv(name, word)
    settings = Settings.load(signal_amplifier_type="ecdf", max_ks_distance=1.0)
    check_components(settings, settings, prefix="QR_")
    amplifier = AMPLIFIERS.load("ecdf").from_settings(settings)
    found = amplifier.amplify(np.zeros((1, 64), dtype=np.uint8))
    assert str(found.baseline) == Baseline.load(Path("b.json")).digest


def test_source_and_block_length_are_those_of_the_deployment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "mock_uniform")
    monkeypatch.setenv("QR_SAMPLE_COUNT", "50")
    result = measure("--blocks=2")
    assert result.exit_code == 0, result.stderr
    baseline = Baseline.load(Path("b.json"))
    assert (baseline.source, baseline.block_bytes) == ("mock_uniform", 50)
    assert "QR_BASELINE_FILE=" in result.stdout
    assert "export QR_ENTROPY_SOURCE_TYPE" not in result.stdout
    assert "export QR_SAMPLE_COUNT" not in result.stdout


@pytest.mark.parametrize("name", ["zscore_mean", "bit_zscore", "ecdf"])
def test_the_default_number_of_blocks_is_enough_by_default(name: str, tmp_path: Path) -> None:
    count = Settings().sample_count
    rng = np.random.default_rng(2)
    sums = rng.normal(127.5 * count, 73.9 * count**0.5, DEFAULT_BLOCKS).astype(int)
    path = tmp_path / "long.json"
    Baseline(
        source="system",
        source_distribution="",
        source_version="",
        byte_mean=127.5,
        byte_std=73.9,
        ones_fraction=0.5,
        byte_correlation_factor=1.0,
        bit_correlation_factor=1.0,
        blocks=DEFAULT_BLOCKS,
        block_bytes=count,
        block_sums=tuple(sorted(sums.tolist())),
        wall_time_ns=0,
    ).save(path)
    settings = Settings(baseline_file=path, signal_amplifier_type=name)
    check_components(settings, settings, prefix="QR_")


class Counting(EntropySource):
    """Delivers *left* blocks and then nothing more; remembers what happened."""

    name = "counting"
    drawn = 0
    closed = 0
    left = 0

    def get_random_bytes(self, n: int) -> bytes:
        if Counting.drawn == Counting.left:
            raise EntropyUnavailableError(self.name, "the lamp is cold")
        Counting.drawn += 1
        return os.urandom(n)

    def close(self) -> None:
        Counting.closed += 1


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    point = EntryPoint("counting", "lamps:Counting", "qr_sampler.entropy_sources")
    monkeypatch.setattr("qr_sampler.registry.entry_points", lambda **_: [point])
    monkeypatch.setattr("qr_sampler.registry.ENTROPY_SOURCES._loaded", {})
    module = types.ModuleType("lamps")
    vars(module).update(Counting=Counting)
    monkeypatch.setitem(sys.modules, "lamps", module)
    Counting.drawn = Counting.closed = Counting.left = 0
    return Counting


def test_failing_source_leaves_no_file(counting: type[Counting]) -> None:
    counting.left = 7
    result = measure("--source=counting", *SHORT)
    assert result.exit_code == 2
    assert "the lamp is cold" in result.stderr
    assert not Path("b.json").exists()
    assert (counting.drawn, counting.closed) == (7, 1)


def test_existing_file_is_kept_and_nothing_is_drawn(counting: type[Counting]) -> None:
    Path("b.json").write_text("precious", "utf-8")
    result = measure("--source=counting", *SHORT)
    assert result.exit_code == 2
    assert "b.json exists" in result.stderr
    assert Path("b.json").read_text("utf-8") == "precious"
    assert counting.drawn == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output=no/such/directory/b.json",), "existing directory"),
        (("--output=.",), "exists"),
        (("--source=bogus",), "unknown entropy source 'bogus'"),
        (("--block-bytes=16777216",), "use 1 to 16777215"),
    ],
)
def test_mistake_is_reported(arguments: tuple[str, ...], message: str) -> None:
    result = measure(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert not Path("b.json").exists()


def test_stuck_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MockUniformSource, "get_random_bytes", lambda _, n: bytes(n))
    result = measure("--source=mock_uniform", *SHORT)
    assert result.exit_code == 2
    assert "the device is stuck" in result.stderr


def test_progress_goes_to_standard_error_in_ten_lines() -> None:
    result = measure("--source=mock_uniform", *SHORT)
    counted = [f"measuring mock_uniform: {done} of 30 blocks" for done in range(3, 31, 3)]
    assert result.stderr.splitlines() == counted
    assert "measuring" not in result.stdout


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = progress_console()
    terminal.file = io.StringIO()
    monkeypatch.setattr("qr_sampler_cli.progress.progress_console", lambda: terminal)
    assert measure("--source=mock_uniform", *SHORT).exit_code == 0
    shown = terminal.file.getvalue()
    assert "measuring mock_uniform" in shown
    assert "30/30" in shown
