# SPDX-License-Identifier: Apache-2.0
"""Which test sees which fault, after how many draws, and that nothing else is censored.

The shares are those of draws of 10,240 bytes that a test finds suspect or worse, at an assumed
min-entropy of 8 bits a byte. One alone of these tests sees few of the faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from qr_sampler import EntropySource, EntropyUnavailableError, GuardedSource
from qr_sampler.health import HealthMonitor, HealthOptions, HealthState

BLOCK = 10_240
DRAWS = 60
TESTS = (
    "repetition_count",
    "adaptive_proportion",
    "bit_planes",
    "differences",
    "repeated_windows",
)

Deliver = Callable[[np.random.Generator, int], bytes]


def good(rng: np.random.Generator, _: int) -> bytes:
    return rng.bytes(BLOCK)


def biased(probability: float) -> Deliver:
    return lambda rng, _: np.packbits(rng.random(8 * BLOCK) < probability).tobytes()


def sticky(rng: np.random.Generator, _: int) -> bytes:
    changes = rng.random(8 * BLOCK) < 0.49
    return np.packbits(np.bitwise_xor.accumulate(changes)).tobytes()


def larger(rng: np.random.Generator, _: int) -> bytes:
    data = rng.integers(0, 256, BLOCK, dtype=np.uint8)
    raised = (rng.random(BLOCK) < 0.1275 * 256 / 255) & (data < 255)
    return (data + raised.astype(np.uint8)).tobytes()


def top_bit(rng: np.random.Generator, _: int) -> bytes:
    return (rng.integers(0, 256, BLOCK, dtype=np.uint8) | np.uint8(128)).tobytes()


def counter(_: np.random.Generator, draw: int) -> bytes:
    return ((np.arange(BLOCK) + draw * BLOCK) % 256).astype(np.uint8).tobytes()


def hexadecimal(rng: np.random.Generator, _: int) -> bytes:
    return rng.bytes(BLOCK // 2).hex().encode()


def zeros(rng: np.random.Generator, _: int) -> bytes:
    data = rng.integers(0, 256, BLOCK, dtype=np.uint8)
    data[rng.random(BLOCK) < 0.1] = 0
    return data.tobytes()


OLD = np.random.default_rng(5).bytes(BLOCK)

FAULTS: dict[str, tuple[Deliver, tuple[float, ...], int]] = {
    # The share of draws that each test finds, and the draw with which the source has failed. What
    # is served again was served once before it can be seen.
    "stuck byte": (lambda *_: bytes([7]) * BLOCK, (1, 1, 1, 1, 1), 1),
    "top bit stuck": (top_bit, (0, 0, 1, 0.35, 0), 1),
    "counter": (counter, (0, 0, 0, 1, 1), 1),
    "an old block served again": (lambda *_: OLD, (0, 0, 0, 0, 1), 2),
    "ASCII hex instead of bytes": (
        lambda rng, _: rng.bytes(BLOCK // 2).hex().encode(),
        (0, 1, 1, 1, 0),
        1,
    ),
    "10 % of the bytes zero": (zeros, (0.01, 0.91, 0, 1, 0), 1),
}
"""Of 10 % zero bytes every bit plane is 0.45: that is off by less than 0.03 and 7.3 standard errors
together. The differences see them."""

NONE: dict[str, Deliver] = {
    "good": good,
    "p = 0.501": biased(0.501),
    "p = 0.51": biased(0.51),
    "mean + 0.1 %": larger,
    "stickiness 0.02": sticky,
}


def found_by(deliver: Deliver) -> tuple[float, ...]:
    """Returns the share of draws that each test finds, of those after the first."""
    monitor, rng = HealthMonitor(), np.random.default_rng(11)
    monitor.observe(deliver(rng, 0))
    found: Counter[str] = Counter()
    for draw in range(1, DRAWS + 1):
        readings = monitor.read(deliver(rng, draw))
        found.update(reading.test for reading in readings if reading.alarm)
    return tuple(found[test] / DRAWS for test in TESTS)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_by_the_tests_that_can(name: str) -> None:
    deliver, expected, latency = FAULTS[name]
    for share, told in zip(found_by(deliver), expected, strict=True):
        # Certain is certain; of 60 draws a share of 0.35 is off by more than 0.3 once in a million.
        assert share == told if told in (0, 1) else abs(share - told) < 0.3
    monitor, rng = HealthMonitor(), np.random.default_rng(12)
    states = []
    for draw in range(latency):
        monitor.observe(deliver(rng, draw))
        states.append(monitor.state)
    assert states == [HealthState.OK] * (latency - 1) + [HealthState.FAILED]


@pytest.mark.parametrize("name", NONE)
def test_what_an_experiment_looks_for_is_found_by_none(name: str) -> None:
    assert found_by(NONE[name]) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("size", [7, 600])
def test_u_of_a_biased_source_is_not_censored(size: int) -> None:
    """A watched source hands out every draw, and the very bytes, that it does unwatched."""

    class Source(EntropySource):
        name = "biased"
        blocks = False
        min_entropy_per_byte = 8.0

        def __init__(self) -> None:
            self.rng = np.random.default_rng(3)

        def get_random_bytes(self, n: int) -> bytes:
            return np.packbits(self.rng.random(8 * n) < 0.51).tobytes()

    watched = GuardedSource(Source(), 60_000.0, health=HealthOptions())
    unwatched = GuardedSource(Source(), 60_000.0)
    watched.start_up()
    unwatched.draw(1024)
    for _ in range(500):
        draw = watched.draw(size)
        assert draw.health is HealthState.OK
        assert draw.data == unwatched.draw(size).data


def test_the_rows_of_one_draw_cannot_be_the_same_bytes() -> None:
    """Parts of a draw that were delivered twice are seen before any row gets one of them."""

    class Parts(EntropySource):
        name = "parts"
        blocks = False
        min_entropy_per_byte = 8.0

        def get_random_bytes(self, n: int) -> bytes:
            part = np.random.default_rng().bytes(1024)
            return (part * (n // 1024 + 1))[:n]

    guard = GuardedSource(Parts(), 60_000.0, health=HealthOptions())
    with pytest.raises(EntropyUnavailableError, match="health: repeated_windows 2 >= 1"):
        guard.draw(2048)
