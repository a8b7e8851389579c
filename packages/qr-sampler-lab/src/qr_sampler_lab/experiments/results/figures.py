# SPDX-License-Identifier: Apache-2.0
"""The figures of a study: the primary result first, then everything that puts it in its place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import Moments
from qr_sampler_lab.experiments.plan import PlannedSession
from qr_sampler_lab.experiments.protocol import PrimaryEndpoint, Protocol, SecondaryEndpoint
from qr_sampler_lab.experiments.results.block_lengths import ArmMean, compare_block_lengths
from qr_sampler_lab.experiments.results.contrast import block_score, block_test, contrast_test
from qr_sampler_lab.experiments.results.observations import Observation
from qr_sampler_lab.experiments.results.secondary import secondary_results
from qr_sampler_lab.experiments.results.selection import (
    NO_EXCLUSIONS,
    SCORES,
    Score,
    Selection,
)
from qr_sampler_lab.experiments.results.sequential import e_process_of

__all__ = ["StudyData", "study_figures"]

FIGURES_VERSION: Final = 1
"""Version of the layout of the figures."""


class StudyData:
    """The tokens of a study's blocks, with the sealed exclusions and without any.

    Args:
        protocol: What was planned.
        arms: Name of the arm by alias, of the blocks.
        sessions: The plan.
    """

    def __init__(
        self, protocol: Protocol, arms: Mapping[str, str], sessions: Sequence[PlannedSession]
    ) -> None:
        self.protocol = protocol
        self.aliases = {arm: alias for alias, arm in arms.items()}
        self.blocks = {
            session.number: session.block for session in sessions if session.phase == "main"
        }
        """Block by number of session."""
        self.selected = Selection(arms, protocol.exclusions)
        self.all = Selection(arms, NO_EXCLUSIONS)
        sealed = protocol.exclusions.suspect_tokens
        other = protocol.exclusions.model_copy(
            update={"suspect_tokens": "count" if sealed == "exclude" else "exclude"}
        )
        self.otherwise = Selection(arms, other)
        """By the sealed rule, but for that about tokens of suspect bytes."""
        self._block_sessions: dict[int, list[str]] = {}
        for number, block in self.blocks.items():
            if block is not None:
                self._block_sessions.setdefault(block, []).append(str(number))

    def add(self, observations: Iterable[Observation]) -> None:
        """Takes tokens in."""
        for observation in observations:
            self.selected.add(observation)
            self.all.add(observation)
            self.otherwise.add(observation)

    @property
    def suspect_tokens(self) -> int:
        """Number of tokens that count by one rule about suspect bytes, and not by the other."""
        return abs(self.selected.counted.total() - self.otherwise.counted.total())

    def moments(self, name: Score, selection: Selection) -> dict[str, Moments]:
        """Returns the moments of every arm."""
        return {arm: selection.moments(name, alias) for arm, alias in self.aliases.items()}

    def block_scores(self, endpoint: PrimaryEndpoint) -> list[float]:
        """Returns the z of every block that has tokens of all arms of the contrast, in order."""
        scores = (
            self.block_score(endpoint, block, self.selected)
            for block in sorted(self._block_sessions)
        )
        return [score for score in scores if score is not None]

    def block_score(
        self, endpoint: PrimaryEndpoint, block: int, selection: Selection
    ) -> float | None:
        """Returns the z of one block; ``None`` if an arm has no tokens in it."""
        sessions = self._block_sessions[block]
        return block_score(
            {
                arm: [
                    score
                    for session in sessions
                    for score in selection.in_session(
                        endpoint.statistic, self.aliases[arm], session
                    )
                ]
                for arm in endpoint.contrast
            },
            endpoint.contrast,
        )


def study_figures(data: StudyData) -> dict[str, Any]:
    """Returns the figures of a study, as JSON-ready values; numbers that cannot be said are null.

    Args:
        data: Its tokens.
    """
    endpoint = data.protocol.primary
    other: Score = "mean_u" if endpoint.statistic == "mean_statistic" else "mean_statistic"
    figures = {
        "version": FIGURES_VERSION,
        "primary": _primary(data),
        "primary_without_exclusions": _contrast(data, endpoint, endpoint.statistic, data.all),
        "primary_by_blocks": block_test(data.block_scores(endpoint), endpoint.side),
        "primary_with_the_other_number": {
            "statistic": other,
            **_contrast(data, endpoint, other, data.selected),
        },
        "secondary": secondary_results(data.protocol, data.aliases, data.selected),
        "arms": {arm: _arm(data, arm) for arm in sorted(data.aliases)},
        "block_lengths": _block_lengths(data),
    }
    if data.suspect_tokens:
        figures["suspect_tokens"] = _suspect_tokens(data)
    return {name: _finite(value) for name, value in figures.items()}


def _suspect_tokens(data: StudyData) -> dict[str, Any]:
    """Returns the primary contrast with and without the tokens of suspect bytes."""
    endpoint, rule = data.protocol.primary, data.protocol.exclusions.suspect_tokens
    other = "count" if rule == "exclude" else "exclude"
    return {
        "sealed": rule,
        "tokens": data.suspect_tokens,
        rule: _contrast(data, endpoint, endpoint.statistic, data.selected),
        other: _contrast(data, endpoint, endpoint.statistic, data.otherwise),
    }


def _primary(data: StudyData) -> dict[str, Any]:
    endpoint = data.protocol.primary
    told: dict[str, Any] = {
        "statistic": endpoint.statistic,
        "contrast": dict(endpoint.contrast),
        "side": endpoint.side,
        "alpha": endpoint.alpha,
        "rule": data.protocol.stopping.rule,
        **_contrast(data, endpoint, endpoint.statistic, data.selected),
    }
    process = e_process_of(data.protocol)
    if process is not None:
        process.add(data.block_scores(endpoint))
        result = process.result()
        told["e_value"] = {
            "blocks": result.n,
            "log_e_max": result.log_e_max,
            "crossed_at": result.crossed_at,
            "p_value": result.p_value,
        }
        # The p-value of a fixed N promises nothing after looks.
        told["p_value"] = result.p_value
        told["found"] = result.crossed_at is not None
    else:
        told["found"] = bool(told.get("p_value", 1.0) <= endpoint.alpha)
    return told


def _contrast(
    data: StudyData,
    endpoint: PrimaryEndpoint | SecondaryEndpoint,
    name: Score,
    selection: Selection,
) -> dict[str, Any]:
    """Returns a contrast, or why it cannot be said."""
    try:
        result = contrast_test(
            data.moments(name, selection),
            endpoint.contrast,
            between_arms=endpoint.compares_arms,
            alternative=endpoint.side,
        )
    except ConfigError as error:
        return {"cannot_be_said": str(error)}
    return asdict(result)


def _arm(data: StudyData, arm: str) -> dict[str, Any]:
    alias = data.aliases[arm]
    told: dict[str, Any] = {
        "alias": alias,
        "tokens": data.selected.counted[alias],
        "excluded": dict(sorted(data.selected.excluded[alias].items())),
    }
    for name in SCORES:
        moments = data.selected.moments(name, alias)
        told[name] = {"mean": moments.mean, "deviation": moments.deviation}
    return told


def _block_lengths(data: StudyData) -> dict[str, Any] | None:
    """Returns influence against selection, of arms that differ in their block lengths.

    Arms of the same length are one, and count only if they are treated: with the intention HI or
    LO, or where no arm has one, all. That of LO counts with the opposite sign.
    """
    arms = [data.protocol.arm(name) for name in data.aliases]
    treated = [arm for arm in arms if arm.intention != "baseline"] or arms
    if len({arm.block_bytes for arm in treated}) < 2:
        return None
    means = []
    for arm in sorted(treated, key=lambda arm: arm.block_bytes):
        moments = data.selected.moments("mean_statistic", data.aliases[arm.name])
        if moments.n < 2:
            return {"cannot_be_said": f"arm {arm.name!r} has {moments.n} tokens that count"}
        sign = -1.0 if arm.intention == "LO" else 1.0
        error = moments.deviation / math.sqrt(moments.n)
        means.append(ArmMean(block_bytes=arm.block_bytes, mean=sign * moments.mean, error=error))
    result = compare_block_lengths(means)
    return {
        "arms": [asdict(mean) for mean in means],
        **asdict(result),
        "influence_p": result.influence_p,
        "selection_p": result.selection_p,
    }


def _finite(value: Any) -> Any:
    """Returns JSON-ready values without NaN and infinities."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
