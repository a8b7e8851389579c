# SPDX-License-Identifier: Apache-2.0
"""How many tokens truncation may have kept if the logits are a little wrong."""

from __future__ import annotations

import math

import numpy as np

from qr_sampler import SamplingParameters
from qr_sampler.selection import unit_exponent
from qr_sampler.selection.masses import EXPONENT_FLOOR
from qr_sampler_cli.audit.rederivation.judging.row_law import INEXPLICABLE, RowLaw, smallest_error

__all__ = ["needed_for_candidates"]


def needed_for_candidates(
    law: RowLaw, parameters: SamplingParameters, deviation: float, candidates: int
) -> float:
    """Returns the smallest error of the logits with which truncation keeps *candidates* tokens.

    With errors of at most d in every logit, the distance of a token from the most probable one
    changes by at most 2 d, and the standard deviation of the logits by at most d, since it is a
    norm of their deviations from their mean. The odds of the cumulative probabilities that top-p
    compares change by at most exp(2 d / T), as in :meth:`RowLaw.bounds`. For the order of the
    filters see :mod:`qr_sampler.selection.filters`.

    Args:
        law: The row.
        parameters: What its request asked for.
        deviation: Standard deviation of its logits, if top-n-sigma is on.
        candidates: What is recorded.
    """
    if candidates == law.stop - law.start:
        return 0.0
    if not 0 < candidates <= law.below.size:
        return INEXPLICABLE
    if law.window:
        return smallest_error(lambda error: _range_can_have(law, candidates, error))
    prefix = _Prefix(law, parameters, deviation)
    return smallest_error(lambda error: prefix.fewest(error) <= candidates <= prefix.most(error))


def _range_can_have(law: RowLaw, candidates: int, error: float) -> bool:
    starts, stops = law.starts(error), law.stops(error)
    return bool(stops[0] - starts[-1] <= candidates <= stops[1] - starts[0])


class _Prefix:
    """The prefix of the ranks that all filters but typical-p leave."""

    def __init__(self, law: RowLaw, parameters: SamplingParameters, deviation: float) -> None:
        self._law = law
        self._parameters = parameters
        self._deviation = deviation
        self._temperature = 1.0 if parameters.truncate_first else law.temperature
        masses = np.exp(np.maximum(-law.below / self._temperature, EXPONENT_FLOOR))
        self._cumulative = np.concatenate([[0.0], np.cumsum(masses)])

    def fewest(self, error: float) -> int:
        """Returns the smallest number of tokens that may be kept."""
        return self._reaching(self._before_top_p(-error), -error)

    def most(self, error: float) -> int:
        """Returns the largest number of tokens that may be kept."""
        return self._reaching(self._before_top_p(error), error)

    def _before_top_p(self, error: float) -> int:
        """Returns how many tokens top-n-sigma, top-k and min-p keep at most or, below 0, at least.

        Args:
            error: By how much a logit may be wrong, in favour of many tokens.
        """
        law, parameters = self._law, self._parameters
        kept = law.below.size
        if parameters.top_k > 0:
            kept = min(kept, parameters.top_k)
        if parameters.top_n_sigma > 0.0:
            n = parameters.top_n_sigma
            kept = min(kept, law.within(n * self._deviation + (2.0 + n) * error))
        if parameters.min_p > 0.0:
            # No token without a mass is kept; half a unit is rounded up to one.
            least = -(unit_exponent(law.below.size) + 1) * math.log(2.0)
            farthest = -max(math.log(parameters.min_p), least) * self._temperature
            kept = min(kept, law.within(farthest + 2.0 * error))
        return max(kept, 1)

    def _reaching(self, kept: int, error: float) -> int:
        top_p = self._parameters.top_p
        if top_p >= 1.0:
            return kept
        # The share whose odds are those of top_p times exp(2 d / T).
        exponent = np.clip(2.0 * error / self._temperature, EXPONENT_FLOOR, -EXPONENT_FLOOR)
        share = top_p / (top_p + (1.0 - top_p) * math.exp(-exponent))
        goal = share * self._cumulative[kept]
        return min(int(np.searchsorted(self._cumulative[: kept + 1], goal, side="left")), kept)
