# SPDX-License-Identifier: Apache-2.0
"""Laws with atoms: from how many tokens on they show, and numbers that are uniform nevertheless."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from qr_sampler.amplification.laws.fair_bits import FairBitsLaw
from qr_sampler.errors import ConfigError

__all__ = ["LatticeLaw", "Visibility"]

_KS_CRITICAL: Final = 1.36
"""sqrt(n) D at which a test of Kolmogorov and Smirnov alarms in 5 % of all cases."""
_HARMLESS: Final = 0.034
"""sqrt(n) D that raises the rate of 1 % to 1.25 %: the law's tail falls by 6.5 per unit there."""
_BYTE_WEIGHTS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_REACH_DEVIATIONS: Final = 9.5
_SMALLEST: Final = 2.0**-53


@dataclass(frozen=True, slots=True)
class Visibility:
    """What a Kolmogorov distance D between the law of u and the uniform one does to tests of u."""

    distance: float
    """``amplifier.resolution(block_bytes).ks_distance``, or the calibration error of a baseline."""

    @property
    def visible_from(self) -> float:
        """Tokens at which D alone is as large as what alarms at 5 %: ``(1.36 / D)**2``."""
        return (_KS_CRITICAL / self.distance) ** 2 if self.distance > 0.0 else math.inf

    @property
    def harmless_up_to(self) -> float:
        """Tokens up to which a test of u at 1 % alarms in at most 1.25 %: ``(0.034 / D)**2``.

        A sixteen-hundredth of :attr:`visible_from`, since tails are steep. At half of that number a
        test of ideal blocks already alarms at 1 % in every second run.
        """
        return (_HARMLESS / self.distance) ** 2 if self.distance > 0.0 else math.inf

    def distorts(self, n: int) -> bool:
        """Returns whether *n* tokens are beyond that: test the exact law instead of u."""
        return n > self.harmless_up_to

    def false_alarm_bound(self, n: int, alpha: float) -> float:
        """Returns an upper bound of the rate at which the test of *n* ideal tokens alarms.

        D adds at most itself to the statistic (the triangle inequality), so the rate is at most
        that of exceeding the critical value less sqrt(n) D.
        """
        critical = float(special.kolmogi(alpha))
        return float(special.kolmogorov(max(0.0, critical - math.sqrt(n) * self.distance)))


class LatticeLaw:
    """The exact law of an integer statistic of blocks of ideal bytes, tabulated once.

    Its :meth:`transform` makes exactly uniform numbers of integers, for any number of tokens and
    any length of block. So every test for the uniform law tests the discrete one.

    Examples:
        >>> law = LatticeLaw.of_bits(1)
        >>> law.transform([8], np.random.default_rng(1)).item() > 255 / 256
        True
    """

    def __init__(self, weights: tuple[int, ...], count: int) -> None:
        """Makes the law of the sum of ``w * bit`` over *count* fair bits of each weight w."""
        law = FairBitsLaw(weights, count)
        self.total, self.deviation = law.total, law.deviation
        squares = sum(weight**2 for weight in weights)
        self.excess_kurtosis = -2.0 * sum(w**4 for w in weights) / squares**2 / count
        """Fourth cumulant over the squared variance: a fair bit's are -w**4 / 8 and w**2 / 4."""
        reach = math.ceil(_REACH_DEVIATIONS * law.deviation)
        self._first = max(0, law.total // 2 - reach)
        last = min(law.total, law.total // 2 + reach + 1)
        self._centre, self._mass = _table(law, self._first, last)

    @classmethod
    def of_bytes(cls, block_bytes: int) -> LatticeLaw:
        """Returns the law of the sum of the bytes of a block."""
        return cls(_BYTE_WEIGHTS, _checked_length(block_bytes))

    @classmethod
    def of_bits(cls, block_bytes: int) -> LatticeLaw:
        """Returns the law of the number of ones in a block."""
        return cls((1,), 8 * _checked_length(block_bytes))

    def transform(self, values: ArrayLike, rng: np.random.Generator) -> NDArray[np.float64]:
        """Returns ``P(S < s) + v P(S = s)`` for every s, with v from *rng*: uniform in (0, 1).

        The distributional transform (Rueschendorf 2009, proposition 2.1). The v are drawn anew, so
        p-values differ a little between seeds; name the seed with them.

        Args:
            values: Integers, shape ``(B,)``.
            rng: Where v comes from.

        Raises:
            ConfigError: When a value is impossible.
        """
        whole = np.asarray(values)
        if not np.issubdtype(whole.dtype, np.integer):
            raise ConfigError(
                f"values of the type {whole.dtype}: give the integer counts of blocks"
            )
        if whole.size and not (whole.min() >= 0 and whole.max() <= self.total):
            raise ConfigError(
                f"values from {whole.min()} to {whole.max()}: blocks of this length give 0 to "
                f"{self.total}; look whether the length is right"
            )
        at = np.clip(whole - self._first, 0, self._centre.size - 1)
        u = self._centre[at] + (rng.random(whole.size) - 0.5) * self._mass[at]
        uniform: NDArray[np.float64] = np.clip(u, _SMALLEST, 1.0 - _SMALLEST)
        return uniform


def _checked_length(block_bytes: int) -> int:
    if block_bytes < 1:
        raise ConfigError(f"block_bytes={block_bytes}: a block has at least one byte")
    return block_bytes


def _table(
    law: FairBitsLaw, first: int, last: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns centre and mass of the atoms from *first* to *last*, evaluated piece by piece.

    An evaluation takes some thirty terms an atom, which for all atoms at once would be large.
    """
    piece = 2**15
    parts = [
        law.evaluate(np.arange(start, min(start + piece, last + 1)))
        for start in range(first, last + 1, piece)
    ]
    centre, mass = (np.concatenate(column) for column in zip(*parts, strict=True))
    return centre, mass
