# SPDX-License-Identifier: Apache-2.0
"""Where all randomness of this package comes from: uniform numbers, each drawn for one role."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, NamedTuple

import numpy as np

from qr_sampler import EntropyDraw, EntropySource
from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import UniformsExhaustedError

__all__ = [
    "BYTES_PER_UNIFORM",
    "EntropyUniforms",
    "RecordedUniforms",
    "RecordingUniforms",
    "Role",
    "SeededUniforms",
    "UniformDraw",
    "UniformSource",
    "uniforms_of",
]

BYTES_PER_UNIFORM: Final = 8
"""Bytes that one uniform is made of."""

_MANTISSA_SHIFT = np.uint64(11)
_MANTISSA_ULP = 2.0**-53


def uniforms_of(data: bytes) -> FloatArray:
    """Returns the uniforms encoded by *data*, in [0, 1), multiples of 2**-53.

    Each is the upper 53 bits of eight bytes, little-endian, as
    :meth:`EntropySource.get_random_float64` makes them.

    Raises:
        ValueError: When the number of bytes is no multiple of eight.
    """
    words = np.frombuffer(data, dtype="<u8")
    values: FloatArray = np.multiply(words >> _MANTISSA_SHIFT, _MANTISSA_ULP)
    return values


class Role(str, Enum):
    """What a uniform decides."""

    PROPOSAL = "proposal"
    """The draft token; it precedes the target's logits, so it is never just in time."""
    ACCEPT = "accept"
    """Whether a draft token is accepted."""
    RESIDUAL = "residual"
    """The token in place of a rejected one."""
    BONUS = "bonus"
    """The token after a draft that was accepted whole, or without any draft."""

    # That of Enum is Python code, and every draw is counted by role.
    __hash__ = str.__hash__


class UniformDraw(NamedTuple):
    """Uniforms that were drawn, in order."""

    role: Role
    values: FloatArray
    """Shape ``(n,)``, in [0, 1)."""
    draw: EntropyDraw | None
    """The bytes that they were made of and where those came from; ``None`` without a source."""


class UniformSource(ABC):
    """A supplier of independent uniform numbers that accounts for every one.

    Implementations override :meth:`_take`. Nothing is kept for later: what is drawn and not used is
    lost, and stays in the account.
    """

    def __init__(self) -> None:
        self.drawn: Counter[Role] = Counter()
        """How many uniforms were drawn for each role."""

    def draw(self, n: int, role: Role) -> FloatArray:
        """Returns *n* uniforms in [0, 1), multiples of 2**-53, shape ``(n,)``.

        None are asked of anything when *n* is 0.

        Raises:
            ValueError: When *n* is negative.
            EntropyUnavailableError: When the source behind cannot deliver.
            UniformsExhaustedError: When a recording cannot.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if not n:
            return np.empty(0)
        values = self._take(n, role)
        self.drawn[role] += n
        return values

    def draw_one(self, role: Role) -> float:
        """Returns one uniform of :meth:`draw`."""
        return float(self.draw(1, role)[0])

    @abstractmethod
    def _take(self, n: int, role: Role) -> FloatArray:
        """Returns *n* fresh uniforms, at least one."""


class EntropyUniforms(UniformSource):
    """Uniforms from an entropy source: 8 bytes each, one request per call.

    Args:
        source: Not closed here.
        observe: Gets every draw with its provenance, for a ledger.
    """

    def __init__(
        self, source: EntropySource, observe: Callable[[UniformDraw], None] | None = None
    ) -> None:
        super().__init__()
        self._source = source
        self._observe = observe

    def _take(self, n: int, role: Role) -> FloatArray:
        draw = self._source.draw(BYTES_PER_UNIFORM * n)
        values = uniforms_of(draw.data)
        if self._observe is not None:
            self._observe(UniformDraw(role, values, draw))
        return values


class SeededUniforms(UniformSource):
    """Uniforms of PCG64, a control: the same for the same seed, and one stream per role.

    Streams of their own keep roles from replaying each other's numbers in whatever order they are
    called.

    Args:
        seed: Any integer from 0.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        roles = tuple(Role)
        streams = np.random.SeedSequence(seed).spawn(len(roles))
        self._generators = dict(zip(roles, map(np.random.default_rng, streams), strict=True))

    def draw_one(self, role: Role) -> float:
        """Returns one uniform of :meth:`draw`, without an array around it."""
        value = self._generators[role].random()
        self.drawn[role] += 1
        return value

    def _take(self, n: int, role: Role) -> FloatArray:
        return self._generators[role].random(n)


class RecordingUniforms(UniformSource):
    """Uniforms of another source, kept in :attr:`draws`.

    Args:
        inner: Supplies the numbers.
    """

    def __init__(self, inner: UniformSource) -> None:
        super().__init__()
        self._inner = inner
        self.draws: list[UniformDraw] = []
        """All draws so far."""

    def _take(self, n: int, role: Role) -> FloatArray:
        values = self._inner.draw(n, role)
        self.draws.append(UniformDraw(role, values, None))
        return values


class RecordedUniforms(UniformSource):
    """Uniforms of a recording, each served once, in its order and for its role.

    Args:
        draws: For example :attr:`RecordingUniforms.draws`.
    """

    def __init__(self, draws: Iterable[UniformDraw]) -> None:
        super().__init__()
        self._draws = iter(draws)

    def _take(self, n: int, role: Role) -> FloatArray:
        recorded = next(self._draws, None)
        if recorded is None:
            raise UniformsExhaustedError(f"the recording has no more uniforms; {n} are wanted")
        if recorded.role is not role or recorded.values.shape != (n,):
            raise UniformsExhaustedError(
                f"the recording goes on with {recorded.values.size} uniforms for "
                f"{recorded.role.value}, but {n} for {role.value} are wanted"
            )
        return recorded.values
