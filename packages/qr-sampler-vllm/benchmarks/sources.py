# SPDX-License-Identifier: Apache-2.0
"""Entropy that costs next to nothing, so that a benchmark measures everything else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np

from qr_sampler import EntropySource, JitClass

__all__ = ["SAMPLE_COUNT", "PreparedSource", "TailSource"]

SAMPLE_COUNT: Final = 20_480
"""Bytes per row."""

ANSWERS: Final = 16
"""At least as many different answers are prepared of each size."""

PREPARED_BLOCKS: Final = 512
"""At least as many blocks of SAMPLE_COUNT bytes are prepared of each size of answer."""

TAIL_DEVIATIONS: Final = 6.3613409024
"""Phi(6.36134) = 1 - 1e-10."""


class PreparedSource(EntropySource):
    """Hands out pseudo-random answers that were made on the first request of their size, in turn.

    The same bytes come again after many draws. Never sample with it.
    """

    jit_class = JitClass.PSEUDO
    conditioning = "prepared"

    def __init__(self) -> None:
        self._answers: dict[int, Iterator[bytes]] = {}

    @property
    def name(self) -> str:
        """``prepared``."""
        return "prepared"

    def get_random_bytes(self, n: int) -> bytes:
        """Returns the next prepared answer of *n* bytes."""
        if n not in self._answers:
            self._answers[n] = itertools.cycle(_answers(n))
        return next(self._answers[n])


class TailSource(EntropySource):
    """Answers with blocks that the amplifier ``zscore_mean`` turns into u = 1 - 1e-10."""

    jit_class = JitClass.PSEUDO
    conditioning = "constant"

    def __init__(self) -> None:
        self._block = _block_with_sum(
            round(127.5 * SAMPLE_COUNT + TAIL_DEVIATIONS * (65_535 / 12 * SAMPLE_COUNT) ** 0.5)
        )
        self._answers: dict[int, bytes] = {}

    @property
    def name(self) -> str:
        """``tail``."""
        return "tail"

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes, a multiple of SAMPLE_COUNT."""
        if n not in self._answers:
            self._answers[n] = self._block * (n // SAMPLE_COUNT)
        return self._answers[n]


def _answers(size: int) -> list[bytes]:
    rng = np.random.default_rng(size)
    count = max(ANSWERS, PREPARED_BLOCKS * SAMPLE_COUNT // max(size, 1))
    return [rng.bytes(size) for _ in range(count)]


def _block_with_sum(total: int) -> bytes:
    value, rest = divmod(total, SAMPLE_COUNT)
    return bytes([value + 1]) * rest + bytes([value]) * (SAMPLE_COUNT - rest)
