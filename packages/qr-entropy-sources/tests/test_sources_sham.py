# SPDX-License-Identifier: Apache-2.0
"""The control that answers like a device: its bytes, its delays, and that nobody tells it apart."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from qr_entropy_sources.latency_profile import LatencyProfile, LatencySeries, SimulatedLatency
from qr_entropy_sources.sham import ShamSource
from qr_sampler import ConfigError, EntropyUnavailableError, JitClass
from qr_sampler.testing import EntropySourceContract

Latencies = npt.NDArray[np.int64]

DRAWS = 6_000


def device_latencies(size: int, seed: int, count: int = DRAWS) -> Latencies:
    """Returns latencies in ns like those of a USB device: skewed, in steps, sticky, with outliers.

    The logarithm is an AR(1) process; answers wait for the next of the bus's 125 us frames; one
    request in 200 has to wait for something else; larger requests take longer.
    """
    rng = np.random.default_rng([seed, size])
    noise = rng.normal(size=count)
    state = np.empty(count)
    state[0] = noise[0]
    for index in range(1, count):
        state[index] = 0.8 * state[index - 1] + 0.6 * noise[index]
    ns = 200_000 + 40 * size + 150_000 * np.exp(0.5 * state)
    ns = np.ceil(ns / 125_000) * 125_000 + rng.exponential(4_000, count)
    ns += (rng.random(count) < 0.005) * rng.exponential(5e6, count)
    return np.rint(ns).astype(np.int64)


def profile_of(*sizes: int, seed: int = 1) -> LatencyProfile:
    series = [LatencySeries.of(size, device_latencies(size, seed).tolist()) for size in sizes]
    return LatencyProfile(source="device", sizes=tuple(series))


class SimulatedClock:
    """A clock that only sleeping and reading moves, on a system that wakes sleepers late."""

    def __init__(self, seed: int = 3) -> None:
        self.now_ns = 10**15
        self._rng = np.random.default_rng(seed)

    def read(self) -> int:
        self.now_ns += 150
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9 + 50_000 + self._rng.exponential(20_000))


def sham_latencies(
    monkeypatch: pytest.MonkeyPatch, profile: LatencyProfile | None, size: int
) -> Latencies:
    clock = SimulatedClock()
    fixed = np.random.default_rng(17)
    monkeypatch.setattr(np.random, "default_rng", lambda: fixed)
    sham = ShamSource(profile, clock=clock.read, sleep=clock.sleep)
    draws = [sham.draw(size) for _ in range(DRAWS)]
    return np.array([draw.received_ns - draw.requested_ns for draw in draws])


def told_apart(one: Latencies, other: Latencies) -> float:
    """Returns the share of latencies that a classifier assigns to their source, on held-out data.

    The classifier knows the histogram of the first half of each, on 40 common quantiles, and judges
    the second half; equal numbers of both.
    """
    half = len(one) // 2
    edges = np.quantile(np.concatenate([one[:half], other[:half]]), np.linspace(0, 1, 41)[1:-1])
    known = [
        np.bincount(np.searchsorted(edges, part[:half]), minlength=40) for part in (one, other)
    ]
    first, second = (np.searchsorted(edges, part[half:]) for part in (one, other))
    says_first = known[0] > known[1]
    return float(says_first[first].mean() + (~says_first[second]).mean()) / 2.0


class TestShamSource(EntropySourceContract):
    @pytest.fixture
    def generated(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        sizes: list[int] = []
        urandom = os.urandom

        def counting(n: int) -> bytes:
            sizes.append(n)
            return urandom(n)

        monkeypatch.setattr(os, "urandom", counting)
        return sizes

    @pytest.fixture
    def source(self, generated: list[int]) -> ShamSource:
        series = LatencySeries.of(64, [1_000, 2_000, 300_000])
        return ShamSource(LatencyProfile(source="device", sizes=(series,)))

    @pytest.fixture
    def generation_log(self, generated: list[int]) -> Callable[[], int]:
        return lambda: sum(generated)

    @pytest.fixture
    def fault(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        def broken(n: int) -> bytes:
            raise OSError("descriptor table full")

        return lambda: monkeypatch.setattr(os, "urandom", broken)


class TestSeededShamSource(EntropySourceContract):
    not_applicable: ClassVar[dict[str, str]] = {
        "test_a_fork_gets_bytes_of_its_own": "a seed gives the same bytes in every process"
    }

    @pytest.fixture
    def source(self) -> ShamSource:
        return ShamSource(seed=4)


def test_sham_claims_no_measurement() -> None:
    assert ShamSource().jit_class is JitClass.PSEUDO
    assert ShamSource().conditioning == "chacha20-csprng"
    assert ShamSource(seed=1).conditioning == "pcg64"


def test_seeded_sham_bytes_do_not_depend_on_how_they_are_split() -> None:
    apart = ShamSource(seed=5)
    whole = ShamSource(seed=5).get_random_bytes(12)
    assert apart.get_random_bytes(5) + apart.get_random_bytes(7) == whole


def test_latency_does_not_tell_the_sham_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # The profile is of one record, what the device does of another. Everything has a fixed seed:
    # with 3,000 of each on trial, sticky as they are, chance alone moves 50 % by up to 1 %.
    device = device_latencies(10_240, seed=2)
    sham = sham_latencies(monkeypatch, profile_of(1_024, 10_240), 10_240)
    assert told_apart(device, sham) < 0.55


def test_the_classifier_finds_a_control_without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    device = device_latencies(10_240, seed=2)
    assert told_apart(device, sham_latencies(monkeypatch, None, 10_240)) > 0.99


def test_the_classifier_finds_a_timer_that_is_late() -> None:
    class Naive(SimulatedClock):
        def sleep(self, seconds: float) -> None:
            # As if the whole delay were slept through.
            super().sleep(seconds + 200e-6)

    clock = Naive()
    sham = ShamSource(profile_of(10_240), clock=clock.read, sleep=clock.sleep)
    draws = [sham.draw(10_240) for _ in range(DRAWS)]
    late = np.array([draw.received_ns - draw.requested_ns for draw in draws])
    assert told_apart(device_latencies(10_240, seed=2), late) > 0.65


def test_a_delay_ends_within_microseconds_of_its_time() -> None:
    clock = SimulatedClock()
    series = LatencySeries.of(8, [3_000, 80_000, 900_000])
    profile = LatencyProfile(source="device", sizes=(series,))
    sham = ShamSource(profile, clock=clock.read, sleep=clock.sleep)
    for _ in range(200):
        draw = sham.draw(8)
        took = draw.received_ns - draw.requested_ns
        assert min(took - each for each in series.latencies_ns if took >= each) < 2_000


def test_real_delays_are_never_shorter_than_recorded() -> None:
    series = LatencySeries.of(8, [400_000])
    sham = ShamSource(LatencyProfile(source="device", sizes=(series,)))
    began_ns = time.monotonic_ns()
    draw = sham.draw(8)
    assert draw.received_ns - draw.requested_ns >= 400_000
    assert time.monotonic_ns() - began_ns >= 400_000
    assert sham.draw(0).data == b""


def test_simulated_latencies_keep_distribution_and_order() -> None:
    recorded = device_latencies(1_024, seed=5)
    simulated = SimulatedLatency(
        LatencyProfile(source="d", sizes=(LatencySeries.of(1_024, recorded.tolist()),)),
        np.random.default_rng(11),
    )
    drawn = np.array([simulated.next_ns(1_024) for _ in range(DRAWS)])
    assert set(drawn.tolist()) <= set(recorded.tolist())

    def stickiness(values: Latencies) -> float:
        logs = np.log(values)
        return float(np.corrcoef(logs[:-1], logs[1:])[0, 1])

    # 1/64 of the pairs are joins, where nothing is related; a shuffled record has none at all.
    assert stickiness(drawn) == pytest.approx(stickiness(recorded) * 63 / 64, abs=0.08)
    assert abs(stickiness(np.random.default_rng(1).permutation(recorded))) < 0.1
    assert stickiness(recorded) > 0.3


def test_sizes_between_recorded_ones_get_latencies_between_them() -> None:
    series = (LatencySeries.of(100, [10, 20, 30]), LatencySeries.of(300, [110, 220, 330]))
    simulated = SimulatedLatency(LatencyProfile(source="d", sizes=series), np.random.default_rng(1))
    assert {simulated.next_ns(200) for _ in range(100)} == {60, 120, 180}
    assert {simulated.next_ns(150) for _ in range(100)} == {35, 70, 105}
    assert {simulated.next_ns(7) for _ in range(100)} == {10, 20, 30}
    assert {simulated.next_ns(10**6) for _ in range(100)} == {110, 220, 330}


def test_a_file_makes_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "profile.json"
    path.write_text(profile_of(64).model_dump_json())
    monkeypatch.setenv("QR_SHAM_PROFILE", str(path))
    monkeypatch.setenv("QR_SHAM_SEED", "9")
    sham = ShamSource.from_environment()
    assert sham.recorded_settings == {
        "stands_for": "device",
        "profile": hashlib.sha256(path.read_bytes()).hexdigest(),
        "seed": 9,
    }
    assert sham.profile == profile_of(64)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", "source"),
        ("not json", "JSON"),
        ('{"source":"d","sizes":[]}', "sizes"),
        (
            '{"source":"d","sizes":[{"bytes":8,"draws":2,"quantiles_ns":{},"latencies_ns":[1]}]}',
            "2",
        ),
        (
            '{"source":"d","sizes":[{"bytes":8,"draws":1,"quantiles_ns":{},"latencies_ns":[-1]}]}',
            "greater",
        ),
    ],
)
def test_files_that_hold_no_profile_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        LatencyProfile.read(path)
    assert str(path) in str(caught.value)


def test_sizes_that_do_not_ascend_are_refused() -> None:
    one = LatencySeries.of(8, [1])
    with pytest.raises(ValueError, match="do not ascend"):
        LatencyProfile(source="d", sizes=(one, one))


def test_a_missing_or_endless_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        LatencyProfile.read(tmp_path / "none.json")
    endless = Path("/dev/zero")
    if endless.exists():
        with pytest.raises(ConfigError, match="more than"):
            LatencyProfile.read(endless)


def test_a_system_without_a_generator_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(n: int) -> bytes:
        raise NotImplementedError("none")

    monkeypatch.setattr(os, "urandom", refused)
    with pytest.raises(EntropyUnavailableError, match="none"):
        ShamSource().draw(3)
