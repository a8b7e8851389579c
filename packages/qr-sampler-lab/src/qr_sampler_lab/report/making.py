# SPDX-License-Identifier: Apache-2.0
"""From what was added up to the sections of a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from qr_sampler_lab import __version__
from qr_sampler_lab.analysis import TestResult, compare
from qr_sampler_lab.analysis.exploratory import change_of_evidence
from qr_sampler_lab.report.adding.arm import Arm
from qr_sampler_lab.report.adding.arms import ArmKey
from qr_sampler_lab.report.adding.scores import Contrast
from qr_sampler_lab.report.agreement import of_agreement, of_robustness
from qr_sampler_lab.report.analysis import TokenAnalysis
from qr_sampler_lab.report.content import Report, Section, with_discovery_rates
from qr_sampler_lab.report.figures import figures_of
from qr_sampler_lab.report.judging import (
    against_ideal,
    any_time,
    can_be_said,
    compared,
    shaped,
    suited,
    unlike,
)
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
    primary, *sections = with_discovery_rates(
        [
            _primary(analysis, names, contrasts),
            *_sections(analysis, names, arms, told.discards),
        ]
    )
    return Report(
        title=_title(arms),
        stamps=[*told.stamps, *_remarks(analysis)],
        primary=primary,
        arms=[_facts(name, arm) for name, arm in arms],
        sections=sections,
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
    for pair in analysis.pairs():
        arm, control = pair
        who = f"{names[arm]} against {names[control]}"
        told += [(who, result) for result in compared(analysis.arms[arm], analysis.arms[control])]
        if pair in contrasts:
            told.append((who, any_time(contrasts[pair].evidence.result(), "paired scores")))
    if told:
        about = (
            "Arms against each other: what they share, such as a bias of the device or a short "
            f"baseline, cancels between blocks of one length. {_POOLED}"
        )
        return Section.of("Primary: do the arms differ?", about, told)
    for key, name in names.items():
        told += [(name, result) for result in against_ideal(analysis.arms[key])]
    about = f"There is no arm to compare with: against the law of ideal bytes. {_POOLED}"
    return Section.of("Primary: is the mean that of ideal bytes?", about, told)


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
            [(name, result) for name, arm in arms for result in against_ideal(arm)],
        )
        yield Section.of(
            "Do the laws of the arms differ?",
            "Shape and spread, arm against arm.",
            [
                (f"{one} against {other}", result)
                for one, other, arm, control in pairs
                if not unlike(arm, control)
                for result in can_be_said(lambda a=arm, c=control: compare(a.of_u, c.of_u)[1:])
            ],
        )
    yield Section.of(
        "Is the law that of ideal bytes?",
        "Of all tokens of an arm. Where the number is a count on a lattice, its exact law is "
        "tested.",
        [
            (name, shaped(result, arm))
            for name, arm in arms
            for battery in (arm.of_u, arm.of_statistic)
            for result in battery.shape()
        ],
    )
    yield Section.of(
        "Does it change with time?",
        "Drifts, stickiness and jumps, which a mean does not show.",
        [
            # What is accepted changes with the text, and so does the law of accepted drafts.
            (name, suited(result, arm) if arm.key.drafted else result)
            for name, arm in arms
            for battery in (arm.of_u, arm.of_statistic)
            for result in battery.order()
        ],
    )
    yield from _of_bits(arms)
    yield from of_robustness(analysis, arms, discards)
    yield from of_agreement(analysis, arms)
    if analysis.options.exploratory:
        yield _exploratory(analysis, arms)


def _of_bits(arms: Sequence[tuple[str, Arm]]) -> Iterable[Section]:
    told: _Told = []
    for name, arm in arms:
        if arm.key.block_bytes and not (arm.key.baseline or arm.key.drafted):
            for test in (arm.bits.ones_test, arm.bits.sum_test, arm.bits.joint_test):
                told.append((name, test()))
            told.append((name, arm.bits.spread_test()))
    if told:
        yield Section.of(
            "Are the bits fair?", "Ones and byte sums, which go together, jointly.", told
        )


def _exploratory(analysis: TokenAnalysis, arms: Sequence[tuple[str, Arm]]) -> Section:
    told: _Told = []
    for name, arm in arms:
        if arm.key.drafted:
            continue
        for split in arm.splits.values():
            told += [(name, result) for result in can_be_said(lambda s=split: [s.result()])]
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


def _facts(name: str, arm: Arm) -> dict[str, Any]:
    moments = arm.of_u.moments
    return {
        "name": name,
        "tokens": arm.tokens,
        "fallback": arm.fallback,
        "suspect": arm.suspect,
        "amplifier": arm.key.amplifier,
        "block_bytes": arm.key.block_bytes or None,
        "mean_u": moments.mean if moments.n else math.nan,
        "mean_statistic": arm.of_statistic.moments.mean,
        "latency_ms_median": arm.latency_ms(0.5),
        "latency_ms_99": arm.latency_ms(0.99),
    }
