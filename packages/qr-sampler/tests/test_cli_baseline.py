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
from qr_sampler_cli.commands.baseline import DEFAULT_BLOCKS
from qr_sampler_cli.main import app
from qr_sampler_cli.terminal.consoles import progress_console

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
    shown = {line[:24].strip(): line[24:] for line in lines(result)}
    assert shown["source"].startswith("mock_uniform (qr-entropy-sources ")
    assert shown["blocks"] == "30 of 64 bytes"
    assert shown["byte mean"] == f"{statistics.fmean(data):.6f} (ideal 127.5)"
    assert shown["byte sd"] == f"{statistics.pstdev(data):.6f} (ideal 73.900271)"
    ones = sum(byte.bit_count() for byte in data) / (8 * len(data))
    assert shown["ones"] == f"{ones:.8f} (ideal 0.5)"
    factor = 64 * statistics.pvariance(data) / statistics.variance(map(sum, blocks))
    assert shown["byte correlation factor"] == f"{factor:.4f} (ideal 1)"
    assert shown["calibration error"] == "0.1 (QR_MAX_KS_DISTANCE is 0.005)"
    assert shown["error of the mean of u"] == "sqrt((1/N + 1/30) / 12) for N tokens"
    assert lines(result)[-1] == f"digest {baseline.digest}"
    assert max(map(len, result.stdout.splitlines())) <= 80


def lines(result: Result) -> list[str]:
    """The figures, without the last step."""
    return re.split("to use it|too coarse", result.stdout)[0].splitlines()


def test_the_next_step_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_MAX_KS_DISTANCE", "1")
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
    monkeypatch.setenv("QR_MAX_KS_DISTANCE", "1")
    result = measure("--blocks=5")
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


@pytest.mark.parametrize("allowed", ["0.05", "0.03"])
def test_nothing_is_suggested_that_would_be_refused(
    monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    monkeypatch.setenv("QR_MAX_KS_DISTANCE", allowed)
    result = measure("--source=mock_uniform", "--blocks=40", "--block-bytes=1024")
    assert result.exit_code == 0, result.stderr
    assert "export" not in result.stdout
    assert "too coarse for every amplifier (QR_MAX_KS_DISTANCE):" in result.stdout
    assert "40 blocks are too few for an amplifier" in result.stderr
    found = re.findall(r"not with (\w+): .* measure ([\d,]+) blocks$", result.stdout, re.MULTILINE)
    needed = {name: count.replace(",", "") for name, count in found}
    assert set(needed) == {"zscore_mean", "bit_zscore", "ecdf"}
    # That many are enough, and not many more than needed.
    for name, count in needed.items():
        for blocks, enough in ((int(count), True), (int(0.8 * int(count)), False)):
            Path("b.json").unlink()
            again = measure("--source=mock_uniform", f"--blocks={blocks}", "--block-bytes=1024")
            assert (f"not with {name}" not in again.stdout) is enough


def test_only_those_are_suggested_that_would_be_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_MAX_KS_DISTANCE", "0.05")
    result = measure("--source=mock_uniform", "--blocks=200", "--block-bytes=1024")
    assert "to use it with zscore_mean or bit_zscore (" in result.stdout
    assert "export QR_BASELINE_FILE" in result.stdout
    assert re.search(r"not with ecdf: .*; measure [\d,]+ blocks", result.stdout)
    assert "too few" not in result.stderr


def test_blocks_that_are_too_short_or_too_long_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_MAX_KS_DISTANCE", "0.02")
    short = measure("--source=mock_uniform", "--blocks=5000", "--block-bytes=1")
    assert "measure longer blocks" in short.stdout
    Path("b.json").unlink()
    monkeypatch.setenv("QR_MAX_KS_DISTANCE", "1")
    monkeypatch.setenv("QR_MAX_SAMPLE_COUNT", "20000")
    long = measure("--source=mock_uniform", "--blocks=5", "--block-bytes=20001")
    assert "export" not in long.stdout
    assert "sample_count" in long.stdout.lower()


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
    monkeypatch.setattr("qr_sampler.components.registry.entry_points", lambda **_: [point])
    monkeypatch.setattr("qr_sampler.ENTROPY_SOURCES._loaded", {})
    module = types.ModuleType("lamps")
    vars(module).update(Counting=Counting)
    monkeypatch.setitem(sys.modules, "lamps", module)
    Counting.drawn = Counting.closed = Counting.left = 0
    return Counting


def test_failing_source_leaves_no_file(counting: type[Counting]) -> None:
    counting.left = 7
    result = measure("--source=counting", "--patience=0", *SHORT)
    assert result.exit_code == 2
    assert "the lamp is cold" in result.stderr
    assert not Path("b.json").exists()
    assert (counting.drawn, counting.closed) == (7, 1)


def test_what_was_measured_is_kept_and_continued(counting: type[Counting]) -> None:
    counting.left = 7
    first = measure("--source=counting", "--patience=0", *SHORT)
    assert "7 blocks are kept in b.json.partial" in first.stderr
    counting.left = 30
    second = measure("--source=counting", "--patience=0", *SHORT)
    assert second.exit_code == 0, second.stderr
    assert "resuming after 7 blocks" in second.stderr
    assert "23 blocks of 64 bytes will be drawn: 1,472 bytes in 23 requests" in second.stderr
    assert counting.drawn == 30
    assert Baseline.load(Path("b.json")).blocks == 30
    assert [path.name for path in Path.cwd().iterdir()] == ["b.json"]


def test_what_was_kept_of_something_else_is_not_continued(counting: type[Counting]) -> None:
    counting.left = 7
    measure("--source=counting", "--patience=0", *SHORT)
    kept = Path("b.json.partial").read_text("utf-8")
    other = measure("--source=counting", "--blocks=30", "--block-bytes=63")
    assert other.exit_code == 2
    assert "holds blocks of 64 bytes from 'counting'" in other.stderr
    assert "remove it to start over" in other.stderr
    Path("b.json.partial").write_text(kept[:-20], "utf-8")
    assert "begins anew" in measure("--source=counting", *SHORT).stderr
    assert counting.drawn == 7


def test_an_interrupt_keeps_what_was_measured(
    counting: type[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting.left = 100

    def interrupted(_: object, n: int) -> bytes:
        counting.drawn += 1
        if counting.drawn == 12:
            raise KeyboardInterrupt
        return os.urandom(n)

    monkeypatch.setattr(counting, "get_random_bytes", interrupted)
    result = measure("--source=counting", *SHORT)
    assert result.exit_code != 0
    assert "11 blocks are kept in b.json.partial" in result.stderr
    assert measure("--source=counting", *SHORT).exit_code == 0
    assert counting.drawn == 31


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
    announced, warned, *counted, last = result.stderr.splitlines()
    assert announced == "30 blocks of 64 bytes will be drawn: 1,920 bytes in 30 requests"
    assert warned.startswith("30 blocks are too few for an amplifier (calibration error 0.1, ")
    pattern = r"measuring mock_uniform: (\d+) of 30 blocks, about \d+ s left"
    found = [re.fullmatch(pattern, line) for line in counted]
    assert [match and int(match[1]) for match in found] == list(range(3, 30, 3))
    assert last == "measuring mock_uniform: 30 of 30 blocks"
    assert "measuring" not in result.stdout


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = progress_console()
    terminal.file = io.StringIO()
    monkeypatch.setattr("qr_sampler_cli.terminal.progress.progress_console", lambda: terminal)
    assert measure("--source=mock_uniform", *SHORT).exit_code == 0
    shown = terminal.file.getvalue()
    assert "measuring mock_uniform" in shown
    assert "30/30" in shown
