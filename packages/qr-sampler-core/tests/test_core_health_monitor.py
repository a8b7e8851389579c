# SPDX-License-Identifier: Apache-2.0
"""The monitor against a reference that reads one byte at a time, and against planted faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler.health.continuous import AdaptiveProportion, RepetitionCount
from qr_sampler.health.measures import DrawMeasures, Measured
from qr_sampler.health.monitor import HealthMonitor
from qr_sampler.health.policy import HealthPolicy, HealthState
from qr_sampler.health.repeated_windows import RepeatedWindows
from qr_sampler.health.whole_draws import SHORTEST_DRAW, most_frequent_difference
from qr_sampler.testing.health_reference import ContinuousByteByByte
from qr_sampler.testing.health_streams import draws_of, judgements, streams_judged_otherwise

BLOCK = 10_240
Bytes = npt.NDArray[np.uint8]


def split(stream: list[int], sizes: list[int]) -> Iterator[list[int]]:
    """Yields pieces of *stream*, the last of which takes what is left."""
    start = 0
    for size in sizes:
        yield stream[start : start + size]
        start += size
    yield stream[start:]


few_values = st.lists(st.integers(0, 2), max_size=200)
any_values = st.lists(st.integers(0, 255), max_size=200)
runs = st.lists(st.tuples(st.integers(0, 255), st.integers(1, 40)), max_size=12).map(
    lambda pairs: [value for value, times in pairs for _ in range(times)]
)


@settings(max_examples=1500)
@pytest.mark.heavy
@given(
    few_values | any_values | runs,
    st.lists(st.integers(0, 60), max_size=8),
    st.integers(2, 32),
    st.integers(2, 12),
)
def test_streams_are_judged_alike_however_they_are_split(
    stream: list[int], sizes: list[int], window: int, most: int
) -> None:
    reference = ContinuousByteByByte(most, window)
    run, proportion = RepetitionCount(most), AdaptiveProportion(window)
    for piece in split(stream, sizes):
        samples = np.array(piece, dtype=np.uint8)
        assert (run.add(samples), proportion.add(samples)) == reference.add(piece)


def test_whole_streams_are_judged_alike() -> None:
    assert streams_judged_otherwise(range(300), DrawMeasures) == []


def test_the_streams_put_every_test_to_the_test() -> None:
    judged = [judgement for number in range(300) for judgement in judgements(number, DrawMeasures)]
    found = Counter((alarm.test, alarm.state.value) for _, alarm, _ in judged if alarm)
    for test in ("repetition_count", "adaptive_proportion", "bit_planes"):
        assert found[test, "suspect"]
        assert found[test, "failed"]
    for test in ("differences", "repeated_windows", "suspect_draws"):
        assert found[test, "failed"]
    sizes = {len(draw) for number in range(300) for draw in draws_of(number)}
    assert sizes >= {0, 1, 7, 511, 512, 513}


class ForgetsItsStream(DrawMeasures):
    """Begins anew with every draw."""

    def of(self, data: bytes) -> Measured:
        self.restart()
        return super().of(data)


class MissesTheLastByte(DrawMeasures):
    """Compares one neighbour too few."""

    def of(self, data: bytes) -> Measured:
        *stream, differences = super().of(data)
        if len(data) < SHORTEST_DRAW:
            return (*stream, differences)
        return (*stream, most_frequent_difference(np.frombuffer(data[:-1], dtype=np.uint8)))


@pytest.mark.parametrize("flawed", [ForgetsItsStream, MissesTheLastByte])
def test_flaws_show_in_few_streams(flawed: type[DrawMeasures]) -> None:
    assert streams_judged_otherwise(range(30), flawed)


def test_samples_may_be_wide() -> None:
    run, proportion = RepetitionCount(5), AdaptiveProportion(4)
    assert run.add(np.array([2**40, 2**40, 7])) == 2
    assert proportion.add(np.array([2**40, 2**40, 7])) == 2
    assert proportion.add(np.array([2**40])) == 3


def good(rng: np.random.Generator) -> Bytes:
    return rng.integers(0, 256, BLOCK, dtype=np.uint8)


def biased_bits(share: float) -> Callable[[np.random.Generator, int], Bytes]:
    return lambda rng, _: np.packbits(rng.random(8 * BLOCK) < share)


def sticky_bits(rng: np.random.Generator, _: int) -> Bytes:
    """Bits that are like the one before with probability 0.51."""
    changes = rng.random(8 * BLOCK) < 0.49
    return np.packbits(np.cumsum(changes) % 2 == 1)


def larger_bytes(rng: np.random.Generator, _: int) -> Bytes:
    """Bytes whose mean is 0.1 % too large."""
    data = good(rng)
    raised = rng.random(BLOCK) < 0.1275 * 256 / 255
    return np.where(raised & (data < 255), data + 1, data).astype(np.uint8)


def zeros_among(rng: np.random.Generator, _: int) -> Bytes:
    data = good(rng)
    data[rng.random(BLOCK) < 0.1] = 0
    return data


def hexadecimal(rng: np.random.Generator, _: int) -> Bytes:
    return np.frombuffer(rng.bytes(BLOCK // 2).hex().encode(), dtype=np.uint8)


PAIR = ("d505", "9804")
OLD = good(np.random.default_rng(5))

FAULTS: dict[str, tuple[Callable[[np.random.Generator, int], Bytes], str, int]] = {
    # What delivers, the test that sees it most surely, and by which draw the source has failed.
    "a stuck byte": (lambda _, __: np.full(BLOCK, 7, np.uint8), "repetition_count", 1),
    "a stuck top bit": (lambda rng, _: good(rng) | np.uint8(128), "bit_planes", 1),
    "a counter": (lambda _, i: (np.arange(BLOCK) + i).astype(np.uint8), "differences", 1),
    "an old block": (lambda _, __: OLD, "repeated_windows", 2),
    "hexadecimal digits": (hexadecimal, "bit_planes", 1),
    "zeros among": (zeros_among, "differences", 1),
}

SUBTLE = {
    "ideal": lambda rng, _: good(rng),
    "p = 0.501": biased_bits(0.501),
    "p = 0.51": biased_bits(0.51),
    "mean + 0.1 %": larger_bytes,
    "sticky": sticky_bits,
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found_within_few_draws(name: str) -> None:
    deliver, _, latest = FAULTS[name]
    monitor, rng = HealthMonitor(), np.random.default_rng(11)
    for draw in range(latest):
        assert monitor.state is not HealthState.FAILED
        alarm = monitor.observe(deliver(rng, draw).tobytes())
    assert alarm is not None
    assert alarm.state is HealthState.FAILED
    assert monitor.state is HealthState.FAILED


@pytest.mark.parametrize("name", FAULTS)
def test_every_test_has_a_fault_that_it_sees(name: str) -> None:
    deliver, test, latest = FAULTS[name]
    monitor, rng = HealthMonitor(), np.random.default_rng(12)
    found: Counter[str] = Counter()
    for draw in range(40):
        readings = monitor.read(deliver(rng, draw).tobytes())
        found.update(reading.test for reading in readings if reading.alarm)
    assert found[test] >= 40 - latest


@pytest.mark.parametrize("name", SUBTLE)
def test_what_an_experiment_looks_for_trips_nothing(name: str) -> None:
    # An ideal source fails one of 400 draws with a probability of less than 1e-9.
    monitor, rng = HealthMonitor(), np.random.default_rng(13)
    for draw in range(400):
        assert monitor.observe(SUBTLE[name](rng, draw).tobytes()) is None
    assert monitor.state is HealthState.OK


def test_short_draws_are_watched_as_one_stream() -> None:
    monitor, rng = HealthMonitor(), np.random.default_rng(14)
    for _ in range(300):
        assert monitor.observe(rng.bytes(7)) is None
    found = [monitor.observe(bytes(3)) for _ in range(3)]
    assert [alarm and (alarm.test, alarm.value) for alarm in found] == [
        None,
        ("repetition_count", 6),
        ("repetition_count", 9),
    ]
    assert monitor.observe(b"") is None


def test_three_suspect_draws_among_64_are_a_failure() -> None:
    rng = np.random.default_rng(15)
    suspect = b"".join((rng.bytes(200), bytes(7), rng.bytes(200)))
    monitor = HealthMonitor()
    states = []
    for draw in range(140):
        is_suspect = draw in (0, 63, 70, 71, 120)
        alarm = monitor.observe(suspect if is_suspect else rng.bytes(400))
        assert (alarm is None) is not is_suspect
        states.append(monitor.state)
    assert states[64] is HealthState.OK
    assert states[70] is HealthState.SUSPECT
    assert alarm is None
    assert states[71:] == [HealthState.FAILED] * 69
    monitor.restart()
    assert monitor.observe(rng.bytes(400)) is None
    assert monitor.state is HealthState.OK


@pytest.mark.parametrize("size", [1, 7, 64])
def test_one_suspect_window_or_run_in_many_short_draws_is_no_failure(size: int) -> None:
    rng = np.random.default_rng(17)
    window = rng.integers(1, 256, 512, dtype=np.uint8)
    # Of 26 that are a failure and 20 that are suspect: reached half-way, so that draws follow.
    window[np.arange(0, 252, 12)] = 0
    run = rng.integers(1, 256, 512, dtype=np.uint8)
    run[3:11] = 0
    for data, test in ((window, "adaptive_proportion"), (run, "repetition_count")):
        monitor = HealthMonitor()
        pieces = [data[begin : begin + size].tobytes() for begin in range(0, 512, size)]
        found = [monitor.observe(piece) for piece in pieces]
        suspect = [alarm for alarm in found if alarm]
        assert len(suspect) >= (1 if test == "repetition_count" else 4)
        assert {(alarm.test, alarm.state) for alarm in suspect} == {(test, HealthState.SUSPECT)}
        assert monitor.state is not HealthState.FAILED


def test_windows_that_are_suspect_one_after_the_other_are_a_failure() -> None:
    rng = np.random.default_rng(18)
    window = rng.integers(1, 256, 512, dtype=np.uint8)
    window[np.arange(0, 252, 12)] = 0
    monitor = HealthMonitor()
    states = []
    for _ in range(4):
        for begin in range(0, 512, 64):
            monitor.observe(window[begin : begin + 64].tobytes())
        states.append(monitor.state)
    assert states[0] is not HealthState.FAILED
    assert states[-1] is HealthState.FAILED


def test_windows_are_remembered_across_a_restart_and_within_a_draw() -> None:
    rng = np.random.default_rng(16)
    windows = RepeatedWindows()
    first, second = (rng.integers(0, 256, 2 * 512 + 100, dtype=np.uint8) for _ in range(2))
    assert windows.add(first) == 0
    assert windows.add(second[:511]) == 0
    assert windows.add(np.concatenate((second[:512], first[512:1024]))) == 1
    assert windows.add(np.tile(rng.integers(0, 256, 512, dtype=np.uint8), 4)) == 3
    # Two beginnings that share a place: the later one is remembered.
    one, other = (np.frombuffer(bytes.fromhex(head).ljust(512, b"\0"), np.uint8) for head in PAIR)
    assert windows.add(np.concatenate((one, other, one, one, other))) == 1
    monitor = HealthMonitor()
    assert monitor.observe(first.tobytes()) is None
    monitor.restart()
    again = monitor.observe(first.tobytes())
    assert again is not None
    assert str(again) == "repeated_windows: 2, where 1 is too much"


@pytest.mark.parametrize("entropy", [0.0, 0.1, 8.1, float("nan")])
def test_policies_that_make_no_sense_are_refused(entropy: float) -> None:
    with pytest.raises(ValueError, match="min_entropy"):
        HealthPolicy(min_entropy=entropy)


def test_levels_have_an_order() -> None:
    with pytest.raises(ValueError, match="failed_bits"):
        HealthPolicy(suspect_bits=60, failed_bits=40)
