# SPDX-License-Identifier: Apache-2.0
"""From what was added up to the sections of a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from qr_sampler.errors import ConfigError
from qr_sampler_lab import __version__
from qr_sampler_lab.analysis import TestResult, compare, discards_test, funnel
from qr_sampler_lab.analysis.anytime import EProcessResult
from qr_sampler_lab.analysis.exploratory import change_of_evidence
from qr_sampler_lab.report.adding.arm import Arm
from qr_sampler_lab.report.adding.arms import ArmKey
from qr_sampler_lab.report.adding.scores import Contrast
from qr_sampler_lab.report.analysis import TokenAnalysis
from qr_sampler_lab.report.content import Report, Section
from qr_sampler_lab.report.figures import figures_of
from qr_sampler_lab.report.ledgers import ReportInput

__all__ = ["report_of"]

_Told = list[tuple[str, TestResult]]
_Contrasts = Mapping[tuple[ArmKey, ArmKey], Contrast]

_POOLED: Final = (
    "Tokens are pooled, in the order of time: u decides where an answer ends, so means of answers "
    "are biased without any effect."
)
_FEWEST_CHANGES: Final = 10
_PERMUTATIONS: Final = 10_000


def report_of(told: ReportInput, analysis: TokenAnalysis) -> Report:
    """Returns the report on tokens that have been added up.

    Args:
        told: What the tokens are from.
        analysis: What was added up.
    """
    names = analysis.names()
    arms = [(name, analysis.arms[key]) for key, name in names.items()]
    contrasts = analysis.contrasts()
    options = analysis.options
    return Report(
        title=_title(arms),
        stamps=[*told.stamps, *_remarks(analysis)],
        primary=_primary(analysis, names, contrasts),
        arms=[_facts(name, arm) for name, arm in arms],
        sections=[*_sections(analysis, names, arms, told.discards)],
        figures=figures_of(arms, names, contrasts, options),
        ledgers=told.ledgers,
        settings={
            "by": list(options.by),
            "session": analysis.session,
            "control": options.control or None,
            "tau": options.tau,
            "alpha": options.alpha,
            "block_tokens": options.block_tokens,
            "written_by": f"qr-sampler-lab {__version__}",
        },
    )


def _title(arms: Sequence[tuple[str, Arm]]) -> str:
    tokens = sum(arm.tokens for _, arm in arms)
    return f"{tokens:,} tokens of {len(arms)} arm{'' if len(arms) == 1 else 's'}"


def _remarks(analysis: TokenAnalysis) -> list[str]:
    remarks = []
    unknown = sum(arm.unknown for arm in analysis.arms.values())
    if analysis.not_emitted:
        remarks.append(f"{analysis.not_emitted:,} tokens were taken back and are left out.")
    if unknown:
        remarks.append(f"Of {unknown:,} tokens nobody knows whether they were emitted: they count.")
    if len(analysis.arms) > 1 and not analysis.pairs():
        remarks.append("Arms are too many to be compared in pairs: name one with --control.")
    return remarks


def _primary(
    analysis: TokenAnalysis, names: Mapping[ArmKey, str], contrasts: _Contrasts
) -> Section:
    told: _Told = []
    for (arm, control), contrast in contrasts.items():
        who = f"{names[arm]} against {names[control]}"
        told += [(who, result) for result in _compared(analysis.arms[arm], analysis.arms[control])]
        told.append((who, _anytime(contrast.evidence.result(), "paired scores")))
    if told:
        about = (
            "Arms against each other: what they share, such as a bias of the device or a short "
            f"baseline, cancels. {_POOLED}"
        )
        return Section.of("Primary: do the arms differ?", about, told)
    for key, name in names.items():
        told += [(name, result) for result in _against_ideal(analysis.arms[key])]
    about = f"There is no arm to compare with: against the law of ideal bytes. {_POOLED}"
    return Section.of("Primary: is the mean that of ideal bytes?", about, told)


def _compared(arm: Arm, control: Arm) -> Iterable[TestResult]:
    """Returns the means of both numbers compared; of the statistic only if it is the same one."""
    alike = (arm.key.amplifier, arm.key.baseline) == (control.key.amplifier, control.key.baseline)
    yield from _can_be_said(lambda: compare(arm.of_u, control.of_u)[:1])
    if alike and (arm.is_standard or arm.key.block_bytes == control.key.block_bytes):
        yield from _can_be_said(lambda: compare(arm.of_statistic, control.of_statistic)[:1])


def _against_ideal(arm: Arm) -> list[TestResult]:
    results = [_suited(result, arm) for result in arm.of_u.location()]
    results += [_suited(result, arm) for result in arm.of_statistic.location()]
    results.append(_suited(_anytime(arm.evidence.result(), _score_name(arm)), arm))
    return results


def _score_name(arm: Arm) -> str:
    return "statistic" if arm.is_standard else "u"


def _anytime(result: EProcessResult, about: str) -> TestResult:
    crossed = (
        "It never reached"
        if result.crossed_at is None
        else f"After {result.crossed_at:,} scores it first reached"
    )
    return TestResult(
        name="e_value_any_time",
        about=about,
        statistic=result.log_e / math.log(10.0),
        p_value=result.p_value,
        n=result.n,
        effect=result.log_e_max / math.log(10.0),
        effect_name="largest log10 of the e-value",
        notes=(
            f"{crossed} 1/alpha = {1.0 / result.alpha:g}. Valid however often one looks.",
            f"tau = {result.tau:g}; the statistic is log10 of the e-value now.",
        ),
    )


def _suited(result: TestResult, arm: Arm) -> TestResult:
    """Returns a test against the law of ideal bytes, without p-value where that is not the law."""
    reason = ""
    if arm.key.baseline and arm.baseline_blocks is None:
        reason = "u refers to a baseline whose length is not known: name its file with --baseline"
    elif result.about == "statistic" and not arm.is_standard:
        reason = "the law of this amplifier's statistic is not known here"
    elif arm.key.baseline and result.name == "e_value_any_time":
        reason = "scores share the error of their baseline"
    if not reason:
        return result
    return result.with_p_value(math.nan, f"Cannot be said: {reason}. Compare arms instead.")


def _sections(
    analysis: TokenAnalysis,
    names: Mapping[ArmKey, str],
    arms: Sequence[tuple[str, Arm]],
    discards: Counter[tuple[str | None, ...]],
) -> Iterable[Section]:
    pairs = [(names[a], names[b], analysis.arms[a], analysis.arms[b]) for a, b in analysis.pairs()]
    if pairs:
        yield Section.of(
            "Is the mean that of ideal bytes?",
            "Every arm by itself, both numbers.",
            [(name, result) for name, arm in arms for result in _against_ideal(arm)],
        )
        yield Section.of(
            "Do the laws of the arms differ?",
            "Shape and spread, arm against arm.",
            [
                (f"{one} against {other}", result)
                for one, other, arm, control in pairs
                for result in _can_be_said(lambda a=arm, c=control: compare(a.of_u, c.of_u)[1:])
            ],
        )
    yield Section.of(
        "Is the law that of ideal bytes?",
        "Of all tokens of an arm. Where the number is a count on a lattice, its exact law is "
        "tested.",
        [
            (name, _shaped(result, arm))
            for name, arm in arms
            for battery in (arm.of_u, arm.of_statistic)
            for result in battery.shape()
        ],
    )
    yield Section.of(
        "Does it change with time?",
        "Drifts, stickiness and jumps, which a mean does not show.",
        [
            (name, result)
            for name, arm in arms
            for battery in (arm.of_u, arm.of_statistic)
            for result in battery.order()
        ],
    )
    yield from _of_bits(arms)
    yield from _of_robustness(analysis, arms, discards)
    yield from _of_sessions(arms)
    if analysis.options.exploratory:
        yield _exploratory(analysis, arms)


def _shaped(result: TestResult, arm: Arm) -> TestResult:
    has_no_law = result.about == "statistic" and not arm.count
    if has_no_law and math.isfinite(result.p_value):
        reason = "Cannot be said: the law of this statistic is not known here."
        return result.with_p_value(math.nan, reason)
    return _suited(result, arm)


def _of_bits(arms: Sequence[tuple[str, Arm]]) -> Iterable[Section]:
    told: _Told = []
    for name, arm in arms:
        if arm.key.block_bytes and not arm.key.baseline:
            for test in (arm.bits.ones_test, arm.bits.sum_test, arm.bits.joint_test):
                told.append((name, test()))
            told.append((name, arm.bits.spread_test()))
    if told:
        yield Section.of(
            "Are the bits fair?", "Ones and byte sums, which go together, jointly.", told
        )


def _of_robustness(
    analysis: TokenAnalysis,
    arms: Sequence[tuple[str, Arm]],
    discards: Counter[tuple[str | None, ...]],
) -> Iterable[Section]:
    told = [
        (name, _suited(result, arm))
        for name, arm in arms
        if 0 < arm.fallback < arm.tokens
        for result in arm.sensitivity.results(about=_score_name(arm))
    ]
    emitted: Counter[tuple[str | None, ...]] = Counter()
    for key, arm in analysis.arms.items():
        emitted[key.texts] += arm.tokens
    if discards and len(emitted) > 1:
        counts = [(discards[texts], count) for texts, count in emitted.items()]
        told += [
            ("all arms", result)
            for result in _can_be_said(lambda: [discards_test(*zip(*counts, strict=True))])
        ]
    if told:
        yield Section.of(
            "Does it hang on what was left out?",
            "With and without the tokens of a fallback; and whether as many draws came to nothing "
            "in every arm, which a choice afterwards would change.",
            told,
        )


def _of_sessions(arms: Sequence[tuple[str, Arm]]) -> Iterable[Section]:
    told: _Told = []
    for name, arm in arms:
        sessions = arm.sessions.sessions(name)
        if len(sessions) > 1:
            (found,) = funnel(sessions)
            told += [(name, found.heterogeneity), (name, found.asymmetry)]
    if told:
        yield Section.of(
            "Do sessions agree?",
            "Their mean scores against their precision, controls too.",
            told,
        )


def _exploratory(analysis: TokenAnalysis, arms: Sequence[tuple[str, Arm]]) -> Section:
    told: _Told = []
    for name, arm in arms:
        for split in arm.splits.values():
            told += [(name, result) for result in _can_be_said(lambda s=split: [s.result()])]
        means = arm.of_statistic.block_means if arm.is_standard else arm.of_u.block_means
        if len(means.means) >= _FEWEST_CHANGES:
            scores = means.means if arm.is_standard else (means.means - 0.5) * math.sqrt(12.0)
            root = math.sqrt(means.tokens)
            changes = change_of_evidence(
                np.asarray(scores) * root,
                tau=analysis.options.tau * root,
                permutations=_PERMUTATIONS,
            )
            told += [(name, result) for result in changes.results]
    return Section.of(
        "Exploratory: what may be worth a test of its own",
        "Nothing limits how these were chosen: they suggest hypotheses and confirm none.",
        told,
    )


def _can_be_said(results: Any) -> Iterable[TestResult]:
    """Returns what a function returns, nothing if there are too few tokens for it."""
    try:
        told: Iterable[TestResult] = results()
    except ConfigError:
        return ()
    return told


def _facts(name: str, arm: Arm) -> dict[str, Any]:
    moments = arm.of_u.moments
    return {
        "name": name,
        "tokens": arm.tokens,
        "fallback": arm.fallback,
        "amplifier": arm.key.amplifier,
        "block_bytes": arm.key.block_bytes or None,
        "mean_u": moments.mean if moments.n else math.nan,
        "mean_statistic": arm.of_statistic.moments.mean,
        "latency_ms_median": arm.latency_ms(0.5),
        "latency_ms_99": arm.latency_ms(0.99),
    }
