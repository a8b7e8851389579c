# SPDX-License-Identifier: Apache-2.0
"""Timing jitter: measured per call, tested before use, refused when the clock is dull."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from qr_entropy_sources.timing_noise import TimingNoiseSource
from qr_sampler import ConfigError, EntropyUnavailableError
from qr_sampler.health.cutoffs import WINDOW, proportion_cutoff
from qr_sampler.testing import EntropySourceContract

DELTAS_PER_BLOCK = 320


def ticking(deltas: Iterable[int]) -> Callable[[], int]:
    """Returns a clock that advances by each of *deltas* in turn."""
    times = itertools.accumulate(itertools.chain([0], deltas))
    return lambda: next(times)


class ScriptedClock:
    """A noisy clock that counts its readings and can stop, safe for use by several threads.

    A script instead of the real clock, because how noisy that one is depends on the machine.
    """

    def __init__(self) -> None:
        self.readings = 0
        self.stopped = False
        self._random = np.random.default_rng(1)
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self.readings += 1
            if not self.stopped:
                self._now += int(self._random.integers(20, 60))
            return self._now


class TestTimingNoiseSource(EntropySourceContract):
    not_applicable: ClassVar[dict[str, str]] = {
        "test_a_fork_gets_bytes_of_its_own": "the script of the clock is the same in every process"
    }

    @pytest.fixture
    def clock(self) -> ScriptedClock:
        return ScriptedClock()

    @pytest.fixture
    def source(self, clock: ScriptedClock) -> TimingNoiseSource:
        return TimingNoiseSource(clock=clock)

    @pytest.fixture
    def generation_log(self, clock: ScriptedClock) -> Callable[[], int]:
        return lambda: clock.readings // (DELTAS_PER_BLOCK // 32)

    @pytest.fixture
    def fault(self, clock: ScriptedClock) -> Callable[[], None]:
        return lambda: setattr(clock, "stopped", True)


def test_real_clock_gives_sane_bytes_or_an_explanation() -> None:
    """Gross sanity on the clock of this machine, whatever it is."""
    source = TimingNoiseSource(bits_per_delta=0.5)
    try:
        data = source.get_random_bytes(65_536)
    except EntropyUnavailableError as error:
        pytest.skip(f"this machine's clock is refused: {error.reason}")
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-9
    blocks = [data[start : start + 32] for start in range(0, len(data), 32)]
    assert len(set(blocks)) == len(blocks)


def test_blocks_are_digests_of_their_own_deltas() -> None:
    deltas = np.random.default_rng(3).integers(50, 90, size=1000)
    source = TimingNoiseSource(clock=ticking(deltas.tolist()))
    expected = b"".join(
        hashlib.sha256(deltas[start : start + DELTAS_PER_BLOCK].astype("<u4").tobytes()).digest()
        for start in (0, DELTAS_PER_BLOCK)
    )
    assert source.get_random_bytes(40) == expected[:40]


def test_equal_measurements_give_equal_blocks() -> None:
    """Nothing whitens a repeating device: its repetition shows in the output."""
    deltas = np.random.default_rng(4).integers(50, 90, size=DELTAS_PER_BLOCK).tolist()
    source = TimingNoiseSource(clock=ticking(deltas * 3))
    data = source.get_random_bytes(64)
    assert data[:32] == data[32:]


@pytest.mark.parametrize(("n", "readings"), [(0, 0), (1, 513), (32, 513), (33, 641), (64, 641)])
def test_effort_follows_the_request(n: int, readings: int) -> None:
    clock = ScriptedClock()
    TimingNoiseSource(clock=clock).get_random_bytes(n)
    assert clock.readings == readings


def test_a_lower_assumption_measures_more() -> None:
    assert TimingNoiseSource(bits_per_delta=0.5).deltas_per_block == 640
    assert TimingNoiseSource(bits_per_delta=0.3).deltas_per_block == 1067


def steps(size: int, resolution: int) -> list[int]:
    """Returns differences that a clock with a coarse *resolution* shows of 100 ns intervals."""
    times = np.arange(size + 1) * 100 // resolution * resolution
    differences: list[int] = np.diff(times).tolist()
    return differences


@pytest.mark.parametrize(
    "deltas",
    [
        [0] * 2000,
        [41] * 2000,
        steps(2000, 1_000_000),
        steps(2000, 15_600),
        [7] * 400 + [8] * 1600,
        ([5] * 39 + [6]) * 50,
    ],
    ids=["stopped", "constant", "milliseconds", "coarse", "late change", "dominant value"],
)
def test_dull_clocks_are_refused(deltas: list[int]) -> None:
    with pytest.raises(EntropyUnavailableError, match="too coarse or too regular") as caught:
        TimingNoiseSource(clock=ticking(deltas)).get_random_bytes(48)
    assert "QR_TIMING_NOISE_BITS_PER_DELTA" in caught.value.reason


def test_refusal_is_not_remembered() -> None:
    clock = ScriptedClock()
    source = TimingNoiseSource(clock=clock)
    clock.stopped = True
    with pytest.raises(EntropyUnavailableError):
        source.get_random_bytes(1)
    clock.stopped = False
    assert len(source.get_random_bytes(1)) == 1


def deltas_of(source: TimingNoiseSource, deltas: npt.NDArray[np.int64]) -> str:
    """Returns what *source* finds wrong with time differences."""
    return source._defect_of(deltas)


def test_end_of_a_partial_window_is_judged_whole() -> None:
    source = TimingNoiseSource()
    varied = np.arange(WINDOW + 300)
    assert deltas_of(source, varied) == ""
    # Of every four from there on, three are equal: never long in a row, and in no window that
    # begins at a multiple of 512.
    varied[300:][np.arange(WINDOW) % 4 < 3] = -1
    assert "384 of 512 time differences equal" in deltas_of(source, varied)


def test_health_tests_pass_a_source_that_meets_its_claim() -> None:
    """Fair coin differences hold exactly one bit; 4 million of them fail with 4e-6 at seed 6."""
    deltas = np.random.default_rng(6).integers(0, 2, size=4_000_000)
    assert deltas_of(TimingNoiseSource(), deltas) == ""


def test_health_tests_catch_a_source_below_its_claim() -> None:
    """A coin with 0.35 bits claims one. It escapes only if no window opens with its likely side."""
    likely = 2.0**-0.35
    escape = 1 - likely + stats.binom.cdf(proportion_cutoff(1.0, 40) - 2, WINDOW - 1, likely)
    assert escape**100 < 1e-9
    deltas = (np.random.default_rng(8).random(100 * WINDOW) > likely).astype(np.int64)
    assert "time differences" in deltas_of(TimingNoiseSource(), deltas)


def test_claim_that_no_clock_could_contradict_is_refused() -> None:
    with pytest.raises(ValueError, match="could never fail"):
        TimingNoiseSource(bits_per_delta=0.01)


def test_remark_disclaims() -> None:
    status = TimingNoiseSource().status()
    assert status.available
    assert "experimental" in status.reason


@pytest.mark.parametrize("bits", [0.0, -0.5, 1.5, float("nan")])
def test_impossible_assumptions_are_refused(bits: float) -> None:
    with pytest.raises(ValueError, match="bits_per_delta"):
        TimingNoiseSource(bits_per_delta=bits)


def test_settings_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TimingNoiseSource.from_environment().deltas_per_block == DELTAS_PER_BLOCK
    (tmp_path / ".env").write_text("QR_TIMING_NOISE_BITS_PER_DELTA=0.5\n")
    assert TimingNoiseSource.from_environment().bits_per_delta == 0.5
    monkeypatch.setenv("QR_TIMING_NOISE_BITS_PER_DELTA", "0.25")
    source = TimingNoiseSource.from_environment()
    assert source.bits_per_delta == 0.25
    assert source.recorded_settings == {"bits_per_delta": 0.25}


@pytest.mark.parametrize("value", ["many", "0", "1.01", "nan"])
def test_malformed_settings_are_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("QR_TIMING_NOISE_BITS_PER_DELTA", value)
    with pytest.raises(ConfigError, match="QR_TIMING_NOISE_BITS_PER_DELTA") as caught:
        TimingNoiseSource.from_environment()
    assert value in str(caught.value)


def test_default_clock_is_the_performance_counter() -> None:
    assert TimingNoiseSource()._clock is time.perf_counter_ns
