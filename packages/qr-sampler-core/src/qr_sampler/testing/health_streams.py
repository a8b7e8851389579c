# SPDX-License-Identifier: Apache-2.0
"""Streams at which health tests can err, cut into draws, and whether two ways to test them agree.

A stream is a function of its number alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from qr_sampler.health.measures import Measured, Measures
from qr_sampler.health.monitor import HealthMonitor
from qr_sampler.health.policy import Alarm, HealthPolicy, HealthState
from qr_sampler.testing.health_reference import ByteByByte

__all__ = ["STREAM_KINDS", "draws_of", "judgements", "streams_judged_otherwise"]

Bytes = npt.NDArray[np.uint8]
Generator = np.random.Generator

_WINDOW: Final = 512
_SEED: Final = 20_151
_SIZES: Final = (1, 3, 7, 8, 9, 17, 64, 511, 512, 513, 519, 1024, 1025, 2041, 3000, 5120)
"""Among them those at which loops over words, and windows, end and begin."""

_SAME_PLACE: Final = (("d505", "9804"), ("6406", "2405"))
"""Pairs of windows' beginnings that are remembered at the same place, the later one for good."""


def noise(rng: Generator, n: int) -> bytes:
    """Returns independent uniform bytes."""
    return rng.bytes(n)


def one_value(rng: Generator, n: int) -> bytes:
    """Returns one byte, again and again."""
    return bytes([int(rng.integers(256))]) * n


def few_values(rng: Generator, n: int) -> bytes:
    """Returns bytes below one to three."""
    return rng.integers(0, rng.integers(1, 4), n, dtype=np.uint8).tobytes()


def runs(rng: Generator, n: int) -> bytes:
    """Returns nothing but runs, of up to 19 bytes."""
    values = rng.integers(0, 256, n + 1, dtype=np.uint8)
    data: Bytes = np.repeat(values, rng.integers(1, 20, n + 1))[:n]
    return data.tobytes()


def rare_runs(rng: Generator, n: int) -> bytes:
    """Returns noise with some runs about as long as cut-offs."""
    data: Bytes = np.frombuffer(rng.bytes(n), dtype=np.uint8).copy()
    for begin in rng.integers(0, n + 1, int(rng.integers(1, 5))):
        data[begin : begin + int(rng.integers(2, 14))] = rng.integers(256)
    return data.tobytes()


def one_among(rng: Generator, n: int) -> bytes:
    """Returns noise with one value about as often as cut-offs allow in a window."""
    data: Bytes = np.frombuffer(rng.bytes(n), dtype=np.uint8).copy()
    data[rng.random(n) < rng.uniform(0.02, 0.06)] = data[:1]
    return data.tobytes()


def ramp(rng: Generator, n: int) -> bytes:
    """Returns bytes of one difference, now and then with noise among them."""
    step, first = (int(each) for each in rng.integers(0, 256, 2))
    data = (first + step * np.arange(n)).astype(np.uint8)
    replaced = rng.random(n) < rng.choice([0.0, 0.5, 0.9])
    return np.where(replaced, rng.integers(0, 256, n, dtype=np.uint8), data).tobytes()


def periodic(rng: Generator, n: int) -> bytes:
    """Returns a piece of noise, again and again."""
    piece = rng.bytes(int(rng.choice([1, 2, 3, 16, 511, 512, 513, 1024])))
    return (piece * (n // len(piece) + 1))[:n]


def lost_bits(rng: Generator, n: int) -> bytes:
    """Returns noise without some of its bits."""
    mask = rng.integers(0, 256, dtype=np.uint8)
    return (rng.integers(0, 256, n, dtype=np.uint8) & mask).tobytes()


def leaning_bits(rng: Generator, n: int) -> bytes:
    """Returns bits that are ones about as often as tolerances allow."""
    bits = rng.random(8 * n) < rng.uniform(0.3, 0.7)
    return np.packbits(bits).tobytes()


def like_beginnings(rng: Generator, n: int) -> bytes:
    """Returns windows that begin alike, with zeros, or with what is remembered at one place."""
    pair = _SAME_PLACE[rng.integers(len(_SAME_PLACE))]
    heads = [*map(bytes.fromhex, pair), b""]
    data = bytearray(rng.bytes(n))
    for begin in range(0, n - 15, _WINDOW):
        data[begin : begin + 16] = heads[rng.integers(3)].ljust(16, b"\0")
    return bytes(data)


STREAM_KINDS: Final[dict[str, Callable[[Generator, int], bytes]]] = {
    kind.__name__: kind
    for kind in (
        noise,
        one_value,
        few_values,
        runs,
        rare_runs,
        one_among,
        ramp,
        periodic,
        lost_bits,
        leaning_bits,
        like_beginnings,
    )
}
"""What a part of a stream can be."""


def draws_of(number: int, most_bytes: int = 4_000) -> Iterator[bytes]:
    """Yields the draws of one stream.

    Some parts come again, and where one ends has nothing to do with where a draw does.

    Args:
        number: Which stream; the same one for the same number.
        most_bytes: Least number of bytes that no stream has.
    """
    rng = np.random.default_rng([_SEED, number])
    stream, parts = b"", [b""]
    length = int(rng.integers(1, most_bytes))
    while len(stream) < length:
        kind = list(STREAM_KINDS.values())[rng.integers(len(STREAM_KINDS))]
        if rng.random() < 0.8:
            parts.append(kind(rng, int(rng.integers(1, most_bytes // 2))))
        stream += parts[rng.integers(len(parts))] if rng.random() < 0.3 else parts[-1]
    yield from _cut(stream[:length], rng)


def _cut(stream: bytes, rng: Generator) -> Iterator[bytes]:
    """Yields a stream in pieces of one size, of several, or of any, none among them."""
    size = int(rng.choice(_SIZES))
    way, start = rng.integers(3), 0
    while start < len(stream):
        if way == 1:
            size = int(rng.choice((0, *_SIZES)))
        elif way == 2:
            size = int(rng.integers(0, 3_000))
        yield stream[start : start + size]
        start += size


def judgements(
    number: int, make_measures: Callable[[int], Measures]
) -> Iterator[tuple[Measured, Alarm | None, HealthState]]:
    """Yields what is measured in each draw of a stream, the alarm, and the state of the source.

    What is assumed of the source belongs to the stream. One that has failed mostly begins anew.

    Args:
        number: Which stream.
        make_measures: Makes what measures.
    """
    rng = np.random.default_rng([_SEED, number, 1])
    measured: list[Measured] = []

    def noted(most: int) -> Measures:
        return _Noting(make_measures(most), measured)

    monitor = HealthMonitor(HealthPolicy(min_entropy=float(rng.choice([8, 7.5, 6, 2, 0.5]))), noted)
    for draw in draws_of(number):
        alarm = monitor.observe(draw)
        yield measured[-1], alarm, monitor.state
        if monitor.state is HealthState.FAILED and rng.random() < 0.7:
            monitor.restart()


class _Noting:
    """Measures, and keeps what it has measured."""

    def __init__(self, measures: Measures, noted: list[Measured]) -> None:
        self._measures, self._noted = measures, noted
        self.restart = measures.restart

    def of(self, data: bytes) -> Measured:
        self._noted.append(self._measures.of(data))
        return self._noted[-1]


def streams_judged_otherwise(
    numbers: Iterable[int], *contenders: Callable[[int], Measures]
) -> list[int]:
    """Returns those of some streams that are judged otherwise than byte by byte, to the last bit.

    Args:
        numbers: Which streams.
        contenders: Each makes what measures them, for runs of at most a given length.
    """
    otherwise = []
    for number in numbers:
        reference = list(judgements(number, ByteByByte))
        if any(list(judgements(number, contender)) != reference for contender in contenders):
            otherwise.append(number)
    return otherwise
