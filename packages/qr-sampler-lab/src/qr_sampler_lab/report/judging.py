# SPDX-License-Identifier: Apache-2.0
"""Which tests of arms can be said, and which cannot, with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import TestResult, compare
from qr_sampler_lab.analysis.anytime import EProcessResult
from qr_sampler_lab.report.adding.arm import Arm

__all__ = [
    "against_ideal",
    "any_time",
    "can_be_said",
    "compared",
    "score_name",
    "shaped",
    "suited",
    "unlike",
    "withheld",
]

_OTHER_BLOCKS = (
    "The arms have other amplifiers or block lengths: a bias that both share does not cancel."
)


def compared(arm: Arm, control: Arm) -> Iterable[TestResult]:
    """Yields the means of both numbers compared; of the statistic only if it is the same one."""
    reason = unlike(arm, control)
    same_amplifier = arm.key.amplifier == control.key.amplifier
    same_blocks = same_amplifier and arm.key.block_bytes == control.key.block_bytes
    for result in can_be_said(lambda: compare(arm.of_u, control.of_u)[:1]):
        yield _noted(result, reason, same_blocks=same_blocks)
    same_statistic = arm.key.baseline == control.key.baseline and (
        same_blocks or (same_amplifier and arm.is_standard)
    )
    if same_statistic:
        for result in can_be_said(lambda: compare(arm.of_statistic, control.of_statistic)[:1]):
            yield _noted(result, reason, same_blocks=same_blocks)


def _noted(result: TestResult, reason: str, *, same_blocks: bool) -> TestResult:
    if reason:
        return withheld(result, reason)
    return result if same_blocks else replace(result, notes=(*result.notes, _OTHER_BLOCKS))


def unlike(arm: Arm, control: Arm) -> str:
    """Returns why two arms cannot be compared, empty if they can."""
    if arm.key.baseline != control.key.baseline:
        return "the errors of two baselines do not cancel; measure both arms against one"
    if arm.key.drafted != control.key.drafted:
        return "accepted drafts are tokens whose u was kept because of what it chose"
    return ""


def against_ideal(arm: Arm) -> list[TestResult]:
    """Returns the tests of the mean against the law of ideal bytes, of both numbers."""
    results = [*arm.of_u.location(), *arm.of_statistic.location()]
    results.append(any_time(arm.evidence.result(), score_name(arm)))
    return [suited(result, arm) for result in results]


def score_name(arm: Arm) -> str:
    """Returns which number the scores of an arm are of."""
    return "statistic" if arm.is_standard else "u"


def any_time(result: EProcessResult, about: str) -> TestResult:
    """Returns what an e-process says."""
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


def suited(result: TestResult, arm: Arm) -> TestResult:
    """Returns a test against the law of ideal bytes, withheld where that is not the law."""
    reason = ""
    if arm.key.drafted:
        reason = "u of an accepted draft was kept because of what it chose, and is not uniform"
    elif arm.key.baseline and arm.baseline_blocks is None:
        reason = "u refers to a baseline whose length is not known: name its file with --baseline"
    elif result.about == "statistic" and not arm.is_standard:
        reason = "the law of this amplifier's statistic is not known here"
    elif arm.key.baseline and result.name in ("e_value_any_time", "stouffer"):
        reason = "scores share the error of their baseline"
    return withheld(result, f"{reason}. Compare arms instead") if reason else result


def shaped(result: TestResult, arm: Arm) -> TestResult:
    """Returns a test of shape, withheld where there is no law to test."""
    if result.about == "statistic" and not arm.count and math.isfinite(result.p_value):
        return withheld(result, "the law of this statistic is not known here")
    return suited(result, arm)


def withheld(result: TestResult, reason: str) -> TestResult:
    """Returns a result without its p-value and its interval, both of which would be wrong."""
    return replace(
        result,
        p_value=math.nan,
        interval=None,
        notes=(*result.notes, f"Cannot be said: {reason}."),
    )


def can_be_said(results: Any) -> Iterable[TestResult]:
    """Returns what a function returns, nothing if there are too few tokens for it."""
    try:
        told: Iterable[TestResult] = results()
    except ConfigError:
        return ()
    return told
