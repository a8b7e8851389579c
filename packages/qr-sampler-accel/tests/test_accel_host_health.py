# SPDX-License-Identifier: Apache-2.0
"""The compiled pass over a draw measures what the reference in NumPy does, however it is split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler.health import HealthMonitor, HealthPolicy, HealthState
from qr_sampler.health.measures import DrawMeasures
from qr_sampler_accel import health_monitor

pytest.importorskip("numba", reason="needs the extra numba")

from qr_sampler_accel.host import health_pass
from qr_sampler_accel.host.health_pass import CompiledMeasures

Generator = np.random.Generator


def few_values(rng: Generator, n: int) -> bytes:
    return rng.integers(0, rng.integers(1, 4), n, dtype=np.uint8).tobytes()


def runs(rng: Generator, n: int) -> bytes:
    values = rng.integers(0, 256, n + 1, dtype=np.uint8)
    return np.repeat(values, rng.integers(1, 20, n + 1))[:n].tobytes()


def ramp(rng: Generator, n: int) -> bytes:
    step, first = (int(each) for each in rng.integers(0, 256, 2))
    return (first + step * np.arange(n)).astype(np.uint8).tobytes()


def periodic(rng: Generator, n: int) -> bytes:
    piece = rng.bytes(int(rng.choice([1, 3, 16, 512, 513])))
    return (piece * (n // len(piece) + 1))[:n]


def lost_bits(rng: Generator, n: int) -> bytes:
    mask = rng.integers(0, 256, dtype=np.uint8)
    return (rng.integers(0, 256, n, dtype=np.uint8) & mask).tobytes()


KINDS: tuple[Callable[[Generator, int], bytes], ...] = (
    lambda rng, n: rng.bytes(n),
    lambda rng, n: bytes([int(rng.integers(256))]) * n,
    few_values,
    runs,
    ramp,
    periodic,
    lost_bits,
)

SIZES = (0, 1, 2, 3, 7, 8, 9, 10, 11, 17, 64, 505, 511, 512, 513, 1024, 2041, 3000)
"""Among them those at which loops over words end and begin."""


def stream(seed: int) -> Iterator[bytes]:
    """Yields draws; a kind mostly goes on for some of them, and some come again."""
    rng = np.random.default_rng(seed)
    earlier: list[bytes] = []
    while True:
        kind = KINDS[rng.integers(len(KINDS))]
        for _ in range(rng.integers(1, 4)):
            data = kind(rng, int(rng.choice(SIZES)))
            yield data
            earlier.append(data)
        if rng.random() < 0.3:
            yield earlier[rng.integers(len(earlier))]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 4, 6, 9, 41, 121]))
def test_every_value_is_that_of_the_reference(seed: int, most: int) -> None:
    compiled, reference = CompiledMeasures(most), DrawMeasures(most)
    draws = stream(seed)
    for _ in range(12):
        data = next(draws)
        assert compiled.of(data) == reference.of(data)
    compiled.restart()
    reference.restart()
    for _ in range(4):
        data = next(draws)
        assert compiled.of(data) == reference.of(data)


def test_long_draws_overflow_nothing() -> None:
    """Of so many bytes that sums of words inside of words would, were they not taken apart."""
    for data in (bytes([255]) * 200_001, np.random.default_rng(2).bytes(200_003)):
        assert CompiledMeasures(9).of(data) == DrawMeasures(9).of(data)


def test_the_loops_are_right_without_a_compiler_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, function in list(vars(health_pass).items()):
        if hasattr(function, "py_func"):
            monkeypatch.setattr(health_pass, name, function.py_func)
    rng = np.random.default_rng(3)
    compiled, reference = CompiledMeasures(9), DrawMeasures(9)
    with np.errstate(over="ignore"):
        for kind in KINDS:
            for n in (5, 600):
                data = kind(rng, n)
                assert compiled.of(data) == reference.of(data)
        again = rng.bytes(1024)
        for _ in range(2):
            assert compiled.of(again) == reference.of(again)


def test_runs_are_found_wherever_they_begin_and_end() -> None:
    """At the ends of words, of the pieces that are read at once, and of the draw."""
    noise = np.random.default_rng(5).integers(0, 255, 2_100, dtype=np.uint8)
    for begin in (0, 1, 6, 7, 8, 1015, 1021, 1022, 1023, 1024, 1025, 2039, 2046, 2047, 2048, 2088):
        for length in (2, 3, 5, 12, 700):
            data = noise.copy()
            data[begin : begin + length] = 255
            for most in (3, 9, 301):
                measured = CompiledMeasures(most).of(data.tobytes())
                assert measured == DrawMeasures(most).of(data.tobytes())


def test_monitors_come_to_the_same_verdicts() -> None:
    policy = HealthPolicy(min_entropy=6.0)
    compiled, reference = health_monitor(policy), HealthMonitor(policy)
    draws = stream(4)
    seen = set()
    for number in range(200):
        data = next(draws)
        alarm = compiled.observe(data)
        assert alarm == reference.observe(data)
        assert compiled.state is reference.state
        seen.add(alarm and alarm.test)
        if compiled.state is HealthState.FAILED and number % 3 == 0:
            compiled.restart()
            reference.restart()
    assert seen >= {None, "repetition_count", "adaptive_proportion", "repeated_windows"}
