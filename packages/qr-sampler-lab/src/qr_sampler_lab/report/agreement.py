# SPDX-License-Identifier: Apache-2.0
"""Whether sessions, sources and choices of tokens agree: the sections of a report about that."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import numpy as np

from qr_sampler_lab.analysis import Session, TestResult, discards_test, funnel, stouffer
from qr_sampler_lab.analysis.exploratory import window_sensitivity
from qr_sampler_lab.report.adding.arm import Arm
from qr_sampler_lab.report.analysis import TokenAnalysis
from qr_sampler_lab.report.content import Section
from qr_sampler_lab.report.judging import can_be_said, score_name, suited, withheld

__all__ = ["of_agreement", "of_robustness"]

_Arms: TypeAlias = Sequence[tuple[str, Arm]]
_Told: TypeAlias = list[tuple[str, TestResult]]

FEWEST_BLOCKS: Final = 10
"""Blocks of tokens from which on windows are shifted by a tenth of them."""

FEWEST_ANSWERS: Final = 50
"""Answers of a session from which on it matters little that u decides their lengths."""

_DECIDED_BY_U: Final = (
    "answers are of unequal lengths, which u may have decided, and so the weights of sessions"
)


def of_robustness(
    analysis: TokenAnalysis, arms: _Arms, discards: Counter[tuple[str | None, ...]]
) -> Iterable[Section]:
    """Yields the section about fallback, discards and windows, if there is anything in it."""
    told = [
        (name, suited(result, arm))
        for name, arm in arms
        if 0 < arm.fallback < arm.tokens
        for result in can_be_said(lambda a=arm: a.sensitivity.results(about=score_name(a)))
    ]
    yield from _of_suspects(arms)
    told += [("all arms", result) for result in _of_discards(analysis, discards)]
    told += [(name, _window(arm)) for name, arm in arms if _has_windows(arm)]
    if told:
        yield Section.of(
            "Does it hang on what was left out?",
            "With and without the tokens of a fallback; whether as many draws came to nothing in "
            "every arm, which a choice afterwards would change; and how far z strays when the "
            "beginning and the end are shifted, which is exploratory.",
            told,
        )


def _of_suspects(arms: _Arms) -> Iterable[Section]:
    """Yields the section about tokens of suspect bytes, if there are any."""
    told = [
        (name, suited(result, arm))
        for name, arm in arms
        if arm.suspect
        for result in can_be_said(lambda a=arm: a.suspects.results(about=score_name(a)))
    ]
    if told:
        yield Section.of(
            "Does it hang on suspect bytes?",
            "With and without the tokens whose bytes the health tests found suspect, which a good "
            "source shows once in 2**40 draws or less.",
            told,
        )


def _of_discards(
    analysis: TokenAnalysis, discards: Counter[tuple[str | None, ...]]
) -> Iterable[TestResult]:
    emitted: Counter[tuple[str | None, ...]] = Counter()
    for key, arm in analysis.arms.items():
        emitted[key.texts] += arm.tokens
    if not discards or len(emitted) < 2:
        return ()
    counts = [(discards[texts], count) for texts, count in emitted.items()]
    return can_be_said(lambda: [discards_test(*zip(*counts, strict=True))])


def _has_windows(arm: Arm) -> bool:
    is_ideal = not (arm.key.baseline or arm.key.drafted)
    return is_ideal and len(arm.of_u.block_means.means) >= FEWEST_BLOCKS


def _window(arm: Arm) -> TestResult:
    """Returns z of all whole blocks, and of windows that lack up to a tenth at either end."""
    battery = arm.of_statistic if arm.is_standard else arm.of_u
    blocks, is_u = battery.block_means, not arm.is_standard
    count = len(blocks.means)
    found = window_sensitivity(
        blocks.means,
        0,
        count,
        block_tokens=blocks.tokens,
        reach=count // 10,
        expected=0.5 if is_u else 0.0,
        deviation=math.sqrt(1.0 / 12.0) if is_u else 1.0,
    )
    note = (
        f"z from {found.smallest:.2f} to {found.largest:.2f} where up to {count // 10:,} of "
        f"{count:,} blocks are left out at either end."
    )
    return TestResult(
        name="window_sensitivity",
        about=score_name(arm),
        statistic=found.declared,
        p_value=math.nan,
        n=count * blocks.tokens,
        effect=found.share_significant,
        effect_name="share of windows whose z is beyond 1.96",
        exploratory=True,
        notes=(note,),
    )


def of_agreement(analysis: TokenAnalysis, arms: _Arms) -> Iterable[Section]:
    """Yields the sections about sessions and about sources, if there are several."""
    told: _Told = []
    for name, arm in arms:
        sessions = arm.sessions.sessions(name)
        if len(sessions) > 1:
            told += [(name, result) for result in _of_sessions(arm, sessions)]
    if told:
        yield Section.of(
            "Do sessions agree?",
            "Their mean scores against their precision, controls too; and all of them together.",
            told,
        )
    network = analysis.network
    told = [
        (", ".join(sorted(network.sources)), result)
        for test in (network.network_variance, network.pair_products)
        for result in can_be_said(lambda t=test: [t()])
    ]
    if told:
        yield Section.of(
            "Do sources deviate together?",
            f"The k-th {analysis.options.block_tokens:,} tokens of every source beside each other. "
            "A single biased or noisy source raises the variance, too. Products of pairs are of "
            "scores that were standardised by their own mean and deviation.",
            told,
        )


def _of_sessions(arm: Arm, sessions: Sequence[Session]) -> Iterable[TestResult]:
    (found,) = funnel(sessions)
    weights = np.sqrt([session.n for session in sessions])
    z = np.array([session.effect / session.error for session in sessions])
    together = stouffer(z, weights, about=score_name(arm))
    yield suited(together.with_p_value(together.p_value, "Weighted by the roots of tokens."), arm)
    is_fair = arm.answers.are_equal
    # An average over many answers forgets how the last one ended, a regression on their sizes does
    # not.
    is_long = arm.answers.count >= FEWEST_ANSWERS * len(sessions)
    heterogeneity = found.heterogeneity
    if arm.key.drafted:
        heterogeneity = withheld(heterogeneity, "the variance of such tokens is not known")
    yield heterogeneity if is_fair or is_long else withheld(heterogeneity, _DECIDED_BY_U)
    yield found.asymmetry if is_fair else withheld(found.asymmetry, _DECIDED_BY_U)
