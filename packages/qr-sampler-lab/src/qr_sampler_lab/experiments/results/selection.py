# SPDX-License-Identifier: Apache-2.0
"""Which tokens count, by the sealed rule, and what is left out for which reason."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qr_sampler_lab.analysis import Moments
from qr_sampler_lab.experiments.protocol import Exclusions
from qr_sampler_lab.experiments.results.observations import Observation

__all__ = [
    "NO_EXCLUSIONS",
    "SCORES",
    "Score",
    "Selection",
    "scores_of",
    "uniform_of",
    "why_excluded",
]

NO_EXCLUSIONS: Final = Exclusions(
    fallback=False, not_just_in_time=False, suspect_tokens="count", first_tokens=0
)
"""The rule that leaves nothing out, for the sensitivity analysis."""

Score: TypeAlias = Literal["mean_statistic", "mean_u"]

SCORES: Final[tuple[Score, ...]] = ("mean_statistic", "mean_u")
"""The numbers that a study looks at; both are always shown."""

_UNIFORM_DEVIATION: Final = 12.0**-0.5
"""Standard deviation of a uniform number."""


class Selection:
    """Scores of the tokens that count, by alias and session, and counts of all others.

    Scores have mean 0 and variance 1 in theory: the amplifier's statistic as it is, u in its
    standard deviations from 1/2.

    Args:
        aliases: The aliases that matter; tokens of others, such as calibrations, are skipped.
        exclusions: The rule.
    """

    def __init__(self, aliases: Iterable[str], exclusions: Exclusions) -> None:
        self._aliases = frozenset(aliases)
        self._exclusions = exclusions
        self._scores: dict[tuple[Score, str], dict[str, array[float]]] = defaultdict(dict)
        self.counted: Counter[str] = Counter()
        """Number of tokens that count, by alias."""
        self.excluded: dict[str, Counter[str]] = defaultdict(Counter)
        """Number of the others, by alias and reason."""

    def add(self, observation: Observation) -> None:
        """Takes a token in."""
        alias = observation.alias
        if alias not in self._aliases:
            return
        scores = scores_of(observation)
        reason = why_excluded(observation, self._exclusions) or ("" if scores else "no score")
        if reason:
            self.excluded[alias][reason] += 1
            return
        self.counted[alias] += 1
        for name, score in zip(SCORES, scores, strict=True):
            sessions = self._scores[name, alias]
            sessions.setdefault(observation.session, array("d")).append(score)

    def scores(self, name: Score, alias: str) -> NDArray[np.float64]:
        """Returns all scores of an alias, session after session."""
        return np.concatenate(
            [np.empty(0), *map(np.asarray, self._scores.get((name, alias), {}).values())]
        )

    def in_session(self, name: Score, alias: str, session: str) -> array[float]:
        """Returns the scores of an alias in one session."""
        return self._scores.get((name, alias), {}).get(session, array("d"))

    def moments(self, name: Score, alias: str) -> Moments:
        """Returns the moments of the scores of an alias."""
        moments = Moments()
        moments.add(self.scores(name, alias))
        return moments


def why_excluded(observation: Observation, exclusions: Exclusions) -> str:
    """Returns why a token does not count; empty if it does."""
    if not observation.emitted:
        return "not emitted"
    if exclusions.fallback and observation.fallback:
        return "fallback"
    if exclusions.not_just_in_time and not observation.just_in_time:
        return "not just in time"
    if exclusions.suspect_tokens == "exclude" and observation.suspect:
        return "suspect"
    if observation.position < exclusions.first_tokens:
        return "first tokens"
    return ""


def scores_of(observation: Observation) -> tuple[float, ...]:
    """Returns the scores of a token in the order of :data:`SCORES`; none if it has none."""
    if observation.statistic is None or observation.u is None:
        return ()
    return observation.statistic, (observation.u - 0.5) / _UNIFORM_DEVIATION


def uniform_of(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns u of scores ``mean_u``, in the open interval (0, 1)."""
    return scores * _UNIFORM_DEVIATION + 0.5
