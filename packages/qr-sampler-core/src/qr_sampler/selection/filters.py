# SPDX-License-Identifier: Apache-2.0
"""Truncation of one row: which ranks a token may be drawn from.

The filters act one after the other on what the ones before have left:

1. top-n-sigma: logits at least ``maximum - n * sigma`` (Tang et al. 2024, arXiv 2411.07641), with
   sigma the standard deviation of the row's finite logits;
2. top-k: the k most probable tokens;
3. min-p: at least ``min_p`` times as probable as the most probable token (Nguyen et al. 2024,
   arXiv 2407.01082);
4. top-p: the fewest most probable tokens that together reach ``top_p`` of what is left (Holtzman
   et al. 2020, arXiv 1904.09751);
5. typical-p: the fewest tokens with -ln p nearest to the entropy of what is left that together
   reach ``typical_p`` of it (Meister et al. 2023, arXiv 2202.00666).

The first four keep a prefix of the ranks, the last a range of them. ``truncate_first`` makes the
first four act on the distribution at temperature 1; typical-p always acts on the one that the token
is drawn from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np

from qr_sampler.arrays import FloatArray
from qr_sampler.selection.masses import MASSLESS, ceil_product
from qr_sampler.settings import SamplingParameters

__all__ = [
    "ENERGY_STEPS",
    "NOTHING",
    "Cut",
    "Filters",
    "Ranking",
    "truncate",
    "typical_range",
]

ENERGY_STEPS: Final = 2.0**14
"""Exponents are rounded to multiples of its inverse before typical-p compares them, so that their
mean is a sum of whole numbers."""


@dataclass(frozen=True, slots=True)
class Filters:
    """The truncation of one row."""

    top_n_sigma: float
    """Number of standard deviations; 0 when off."""
    top_k: int
    """Number of tokens; 0 when off."""
    min_p: float
    """In [0, 1]; 0 when off."""
    top_p: float
    """In (0, 1]; 1 when off."""
    typical_p: float
    """In (0, 1]; 1 when off."""
    truncate_first: bool
    """Whether the first four act on the distribution at temperature 1."""

    @property
    def truncates(self) -> bool:
        """Whether any filter is on."""
        off = Filters(0.0, 0, 0.0, 1.0, 1.0, self.truncate_first)
        return self != off

    @property
    def needs_total(self) -> bool:
        """Whether a choice depends on the total mass of the row at the temperature of the draw."""
        truncated_before = self.truncate_first and self.top_p < 1.0
        return not (self.top_n_sigma or self.top_k or self.min_p or truncated_before)

    @classmethod
    def of(cls, parameters: SamplingParameters, vocab_size: int) -> Filters:
        """Returns the filters that a request asked for."""
        return cls(
            top_n_sigma=parameters.top_n_sigma,
            top_k=parameters.top_k if 0 < parameters.top_k < vocab_size else 0,
            min_p=parameters.min_p,
            top_p=parameters.top_p,
            typical_p=parameters.typical_p,
            truncate_first=parameters.truncate_first,
        )


class Cut(NamedTuple):
    """The end of a prefix of the ranks."""

    rank: int
    """Number of tokens before the cut."""
    lowest: int
    """Lower bound of their total mass."""
    highest: int
    """Upper bound of it, equal to *lowest* where the total is known."""


NOTHING: Final = Cut(0, 0, 0)
"""The cut before the first rank."""


class Ranking(Protocol):
    """A row in rank order, as far as it has been sorted. Answers ``None`` where it cannot tell."""

    def everything(self) -> Cut | None:
        """Returns the cut after the last rank."""

    def after_rank(self, rank: int) -> Cut | None:
        """Returns the cut after *rank* tokens; after V or more, what :meth:`everything` returns."""

    def within_distance(self, distance: float) -> Cut | None:
        """Returns the cut after the last token at most *distance* below the maximum."""

    def with_mass(self, mass: int) -> Cut | None:
        """Returns the cut after the last token whose mass is at least *mass*, which is positive."""

    def reaching(self, fraction: float, start: Cut, stop: Cut) -> Cut | None:
        """Returns the shortest prefix that reaches *fraction* of the mass between two cuts.

        The answer is ``None`` if it depends on where between their bounds the masses lie.

        Args:
            fraction: In the open interval (0, 1).
            start: Beginning of the range, with an exact mass.
            stop: End of the range.
        """

    def typical_cuts(self, stop: Cut, typical_p: float) -> tuple[Cut, Cut] | None:
        """Returns both ends of what :func:`typical_range` keeps of the tokens before *stop*."""

    def token(self, rank: int) -> tuple[int, int]:
        """Returns id and mass of the token at *rank*, the last one of a cut returned before."""


def truncate(ranking: Ranking, filters: Filters, deviation: float, exponent: int) -> Cut | None:
    """Returns the prefix that the first four filters leave, or ``None`` if *ranking* cannot tell.

    Args:
        ranking: The row in rank order.
        filters: What to apply.
        deviation: Standard deviation of the row's logits; used by top-n-sigma only.
        exponent: The mass of the most probable token is 2**exponent.
    """
    cuts: list[Cut | None] = []
    if filters.top_n_sigma:
        cuts.append(ranking.within_distance(filters.top_n_sigma * deviation))
    if filters.top_k:
        cuts.append(ranking.after_rank(filters.top_k))
    if filters.min_p:
        cuts.append(ranking.with_mass(ceil_product(filters.min_p, 2**exponent)))
    # A ranking that cannot tell where one filter cuts has not been sorted as far as that.
    known = [cut for cut in cuts if cut is not None]
    cut = min(known) if known else None if cuts else ranking.everything()
    if cut is None or filters.top_p == 1.0:
        return cut
    return ranking.reaching(filters.top_p, NOTHING, cut)


def typical_range(exponents: FloatArray, masses: FloatArray, typical_p: float) -> tuple[int, int]:
    """Returns the first rank that typical-p keeps, and the one after the last.

    With y the exponent of a token, -ln p differs from the entropy by as much as y does from its
    mean, so that neither logarithm is needed.

    Args:
        exponents: Shape ``(K,)``, distance / temperature of what is left, in rank order.
        masses: Shape ``(K,)``, their masses.
        typical_p: In (0, 1).
    """
    energy = np.rint(np.maximum(exponents, MASSLESS) * -ENERGY_STEPS).astype(np.int64)
    # 25 bits of mass, 19 bits of energy and 2**18 tokens fill 62 of 63 bits.
    weights = masses.astype(np.int64) >> 10
    mean = int((weights * energy).sum()) // int(weights.sum())
    split = int(np.searchsorted(energy, mean, side="left"))
    # From the mean outwards on both sides; of two tokens equally far, the more probable one first.
    outwards = np.concatenate([np.arange(split)[::-1], np.arange(split, energy.size)])
    order = outwards[np.argsort(np.abs(energy[outwards] - mean), kind="stable")]
    goal = ceil_product(typical_p, int(masses.sum()))
    kept = order[: int(np.searchsorted(np.cumsum(masses[order]), goal, side="left")) + 1]
    return int(kept.min()), int(kept.max()) + 1
