# SPDX-License-Identifier: Apache-2.0
"""Judges the drafts of many requests together, so that an accelerator is asked a few times a step.

What a rule of verification needs is the probability of each draft under its target and its
proposal; a block also needs how much of the target a proposal leaves at each of its places. Then
all runs get the token after their accepted drafts at once, and what their rows say of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from qr_sampler.selection import Residual, SparseLaw
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.uniforms import Role
from qr_sampler_tsd.verification import Judgement, joint_ratios, judge_block, judge_tokens
from qr_sampler_vllm.tsd.verification.draft_runs import TokenFacts, UniformShare
from qr_sampler_vllm.tsd.verification.step_uniforms import StepUniforms
from qr_sampler_vllm.tsd.verification.target_laws import RowToken, TargetLaws

__all__ = ["RULES", "JudgedRun", "Rule", "judge_runs"]


class JudgedRun(NamedTuple):
    """What has become of the drafts of one run."""

    accepted: int
    """How many drafts are accepted."""
    tokens: list[int]
    """The accepted drafts, and the token after them if there is one."""
    facts: list[TokenFacts]
    """What their rows say of them."""
    uniforms: StepUniforms
    """The numbers of the run."""


class DraftOdds(NamedTuple):
    """The probabilities of the drafts of one run."""

    targets: list[float]
    """Of each under its target."""
    proposals: list[float]
    """Of each under the distribution that it was drawn from."""


Rule: TypeAlias = Callable[
    [TargetLaws, Sequence[UniformShare], Sequence[DraftOdds], Sequence[StepUniforms]],
    list[Judgement],
]
"""Returns which drafts of each run stand."""


def judge_runs(laws: TargetLaws, shares: Sequence[UniformShare], rule: Rule) -> list[JudgedRun]:
    """Returns what becomes of the drafts of each run.

    Args:
        laws: The target distributions of the rows of all runs.
        shares: The runs with their numbers.
        rule: One of :data:`RULES`.
    """
    uniforms = [share.uniforms() for share in shares]
    judgements = rule(laws, shares, _odds(laws, shares), uniforms)
    following = _following(laws, shares, judgements, uniforms)
    counts = [judgement.accepted for judgement in judgements]
    tokens = [
        [*share.run.proposal.drafts[:count], *more]
        for share, count, more in zip(shares, counts, following, strict=True)
    ]
    facts = _facts(laws, shares, tokens)
    return [*map(JudgedRun, counts, tokens, facts, uniforms)]


def _odds(laws: TargetLaws, shares: Sequence[UniformShare]) -> list[DraftOdds]:
    """Returns the probabilities of the drafts of each run."""
    drafts = [
        RowToken(row, token_id)
        for share in shares
        for row, token_id in zip(share.run.rows, share.run.proposal.drafts, strict=False)
    ]
    targets = iter(laws.probabilities(drafts).tolist())
    return [
        DraftOdds([next(targets) for _ in proposals], proposals)
        for proposals in map(_proposed, shares)
    ]


def _proposed(share: UniformShare) -> list[float]:
    """Returns the probability of each draft under the distribution that it was drawn from."""
    run = share.run
    pairs = zip(run.proposal.laws[: run.length], run.proposal.drafts, strict=False)
    return [law.prob_of(token_id) for law, token_id in pairs]


def _by_token(
    laws: TargetLaws,
    shares: Sequence[UniformShare],
    odds: Sequence[DraftOdds],
    uniforms: Sequence[StepUniforms],
) -> list[Judgement]:
    """Judges each draft by itself, from left to right."""
    return [judge_tokens(*own, numbers) for own, numbers in zip(odds, uniforms, strict=True)]


def _by_block(
    laws: TargetLaws,
    shares: Sequence[UniformShare],
    odds: Sequence[DraftOdds],
    uniforms: Sequence[StepUniforms],
) -> list[Judgement]:
    """Judges the drafts of a run as a whole."""
    residuals = [
        _residual(share, place, weight)
        for share, own in zip(shares, odds, strict=True)
        for place, weight in enumerate(joint_ratios(*own)[1:-1], start=1)
    ]
    rest = iter(laws.remainders(residuals).tolist())
    judgements = []
    for own, numbers in zip(odds, uniforms, strict=True):
        left = [0.0, *(next(rest) for _ in own.targets[1:])]

        def remainder(place: int, _: float, left: list[float] = left) -> float:
            return left[place]

        judgements.append(judge_block(*own, remainder, numbers))
    return judgements


RULES: Final[dict[str, Rule]] = {"token": _by_token, "block": _by_block}
"""By the name of a verifier, how it judges."""


def _residual(share: UniformShare, place: int, weight: float) -> Residual:
    """Returns what a proposal leaves of the target of the row in its place."""
    return Residual(share.run.rows[place], weight, _sparse(share.run.proposal.laws[place]))


def _sparse(law: HeadTailLaw) -> SparseLaw:
    return SparseLaw(*law.apart, law.tail_prob)


def _following(
    laws: TargetLaws,
    shares: Sequence[UniformShare],
    judgements: Sequence[Judgement],
    uniforms: Sequence[StepUniforms],
) -> list[list[int]]:
    """Returns the token after the accepted drafts of each run; none without a row for it."""
    residuals: list[Residual] = []
    numbers: list[float] = []
    owners: list[int] = []
    for index, (share, judged, own) in enumerate(zip(shares, judgements, uniforms, strict=True)):
        run, place = share.run, judged.accepted
        if place == len(run.rows):
            continue
        corrects = place < run.length
        residuals.append(
            _residual(share, place, judged.weight) if corrects else Residual(run.rows[place])
        )
        numbers.append(own.draw_one(Role.RESIDUAL if corrects else Role.BONUS))
        owners.append(index)
    following: list[list[int]] = [[] for _ in shares]
    tokens = laws.select(residuals, np.array(numbers)).tolist()
    for index, token_id in zip(owners, tokens, strict=True):
        following[index].append(token_id)
    return following


def _facts(
    laws: TargetLaws, shares: Sequence[UniformShare], tokens: Sequence[Sequence[int]]
) -> list[list[TokenFacts]]:
    """Returns what the rows of each run say of its tokens."""
    emitted = [
        RowToken(row, token_id)
        for share, own in zip(shares, tokens, strict=True)
        for row, token_id in zip(share.run.rows, own, strict=False)
    ]
    told = zip(laws.ranks(emitted).tolist(), laws.probabilities(emitted).tolist(), strict=True)
    facts = iter([TokenFacts(rank, probability) for rank, probability in told])
    return [[next(facts) for _ in own] for own in tokens]
