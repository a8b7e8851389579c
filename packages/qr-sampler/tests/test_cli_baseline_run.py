# SPDX-License-Identifier: Apache-2.0
"""Measuring for hours on a clock of its own: quotas, lapses, patience, and what is kept."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from qr_sampler import EntropySource, EntropyUnavailableError, SourceLimits
from qr_sampler.amplification import BaselineMeasurement
from qr_sampler_cli.baseline.pace import Pace
from qr_sampler_cli.baseline.run import KEPT_EVERY_S, BaselineRun
from qr_sampler_cli.terminal.durations import duration


class Time:
    """Seconds that pass only where somebody sleeps or a draw takes them."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0.0
        self.now_s += seconds


class Scripted(EntropySource):
    """Draws that take 20 ms and fail as a function of their number says."""

    name = "scripted"

    def __init__(
        self,
        time: Time,
        fails: Callable[[int], EntropyUnavailableError | None] = lambda _: None,
        limits: SourceLimits | None = None,
    ) -> None:
        self._time = time
        self._fails = fails
        self._limits = limits or SourceLimits()
        self.asked_at: list[float] = []

    @property
    def limits(self) -> SourceLimits:
        return self._limits

    def get_random_bytes(self, n: int) -> bytes:
        self.asked_at.append(self._time.now_s)
        self._time.now_s += 0.02
        error = self._fails(len(self.asked_at))
        if error is not None:
            raise error
        return os.urandom(n)


def failed(retry_after_s: float | None = None) -> EntropyUnavailableError:
    return EntropyUnavailableError("scripted", "no answer", retry_after_s=retry_after_s)


class Bench:
    """A run in front of a scripted source, and all that it tells."""

    def __init__(
        self,
        folder: Path,
        fails: Callable[[int], EntropyUnavailableError | None] = lambda _: None,
        *,
        limits: SourceLimits | None = None,
        patience_s: float = 600.0,
    ) -> None:
        self.time = Time()
        self.source = Scripted(self.time, fails, limits)
        self.told: list[str] = []
        self.kept = folder / "kept"
        self.run = BaselineRun(
            self.source,
            self.kept,
            block_bytes=16,
            patience_s=patience_s,
            tell=self.told.append,
            clock=self.time,
            sleep=self.time.sleep,
        )

    def measure(self, blocks: int) -> None:
        self.run.measure(blocks, lambda done, total: None)


def test_a_quota_by_the_minute_is_never_exceeded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limits=SourceLimits(max_requests_per_minute=30))
    bench.measure(200)
    asked = bench.source.asked_at
    assert len(asked) == 200
    assert max(sum(start <= at < start + 60.0 for at in asked) for start in asked) <= 30
    # Spread evenly, and no slower than the quota asks for.
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert max(gaps) == pytest.approx(min(gaps))
    assert max(gaps) < 60.0 / 30 * 1.05


def test_a_draw_of_several_requests_counts_as_so_many(tmp_path: Path) -> None:
    limits = SourceLimits(max_requests_per_minute=30, max_bytes_per_request=5)
    bench = Bench(tmp_path, limits=limits)
    bench.measure(20)
    # 16 bytes are four requests of up to five.
    assert len(bench.source.asked_at) == 80
    assert bench.time.now_s - 1_000.0 >= 19 * 4 * 2.0


def test_failures_are_repeated_and_every_block_is_measured(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda number: failed() if number % 3 == 0 else None)
    bench.measure(100)
    assert bench.run.measurement.blocks == 100
    assert bench.run.failures == 49
    assert len(bench.source.asked_at) == 149
    # A lapse now and then is nothing to read about.
    assert bench.told == []
    assert not bench.kept.exists()


def test_a_used_up_quota_is_waited_for_however_long_it_takes(tmp_path: Path) -> None:
    hours_s = 5 * 3_600.0

    def fails(number: int) -> EntropyUnavailableError | None:
        return failed(hours_s) if number in (1, 11) else None

    bench = Bench(tmp_path, fails, patience_s=60.0)
    bench.measure(20)
    assert bench.run.measurement.blocks == 20
    assert bench.time.now_s - 1_000.0 > 2 * hours_s
    assert bench.told == ["no answer; trying again in 5 h"] * 2


def test_a_source_that_stays_silent_is_given_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda number: failed() if number > 5 else None, patience_s=300.0)
    with pytest.raises(EntropyUnavailableError, match="no answer"):
        bench.measure(20)
    silent_s = bench.time.now_s - bench.source.asked_at[5]
    assert 300.0 <= silent_s < 300.0 + 31.0
    assert BaselineMeasurement.load(bench.kept).blocks == 5
    assert bench.told[-1].startswith("5 blocks are kept in ")
    # The pauses grow, so that a server that is down is not pestered.
    assert len(bench.source.asked_at) < 30


def test_a_limit_that_never_recovers_is_given_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda number: failed(5.0) if number > 5 else None, patience_s=60.0)
    with pytest.raises(EntropyUnavailableError):
        bench.measure(20)
    assert bench.time.now_s - bench.source.asked_at[5] < 130.0


@pytest.mark.parametrize("retry_after_s", [None, math.inf])
def test_a_mistake_is_seen_at_once(tmp_path: Path, retry_after_s: float | None) -> None:
    bench = Bench(tmp_path, lambda _: failed(retry_after_s))
    with pytest.raises(EntropyUnavailableError):
        bench.measure(20)
    assert len(bench.source.asked_at) == 1
    assert not bench.kept.exists()


def test_a_run_that_is_killed_loses_half_a_minute(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limits=SourceLimits(max_requests_per_minute=60))
    seen: list[int] = []

    def watch(done: int, _total: int) -> None:
        kept = BaselineMeasurement.load(bench.kept).blocks if bench.kept.exists() else 0
        seen.append(done - kept)

    bench.run.measure(200, watch)
    assert max(seen) <= KEPT_EVERY_S + 1
    assert seen[-1] < 40


def test_the_shortest_time_is_that_of_the_quotas() -> None:
    now = Time()
    slow = Pace(SourceLimits(max_requests_per_minute=500), 10_240, now)
    assert slow.shortest_s(40_000) == pytest.approx(80 * 60.0, rel=0.05)
    scarce = Pace(SourceLimits(max_bytes_per_day=150_000_000), 10_240, now)
    assert scarce.shortest_s(40_000) == 2 * 86_400.0
    assert Pace(SourceLimits(), 10_240, now).shortest_s(10**9) == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "1 s"), (59.2, "1 min"), (3_600, "1 h"), (3_601, "1 h"), (90_061, "1 d 1 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
