# SPDX-License-Identifier: Apache-2.0
"""A source that keeps its own account of what a host draws, and fails on demand."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from random import Random

from qr_sampler.entropy.draw import JitClass
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError

__all__ = ["WitnessSource", "WitnessedDraw"]


@dataclass(frozen=True, slots=True)
class WitnessedDraw:
    """One answer of a :class:`WitnessSource`."""

    began_ns: int
    """When it was asked, by ``time.monotonic_ns()``."""
    ended_ns: int
    """When it answered."""
    data: bytes
    """What it answered."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.data)


class WitnessSource(EntropySource):
    """Answers at once with pseudo-random bytes and notes every answer.

    Args:
        name: Name to go by.
        fail_after: Number of draws after which it is unavailable; ``None`` for never.
    """

    jit_class = JitClass.PSEUDO
    blocks = False
    conditioning = "chosen"
    min_entropy_per_byte = 0.0

    def __init__(self, name: str = "witness", *, fail_after: int | None = None) -> None:
        self.draws: list[WitnessedDraw] = []
        """Its answers, in order."""
        self.fail_after = fail_after
        self._name = name
        self._bytes = Random(name)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self._name

    @property
    def bytes_drawn(self) -> int:
        """Number of bytes that it has delivered."""
        return sum(draw.size for draw in self.draws)

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes and notes that in :attr:`draws`."""
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        began_ns = time.monotonic_ns()
        with self._lock:
            if self.fail_after is not None and len(self.draws) >= self.fail_after:
                raise EntropyUnavailableError(self.name, "told to fail")
            data = self._bytes.randbytes(n)
            self.draws.append(WitnessedDraw(began_ns, time.monotonic_ns(), data))
        return data
