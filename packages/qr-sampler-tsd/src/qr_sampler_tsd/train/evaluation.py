# SPDX-License-Identifier: Apache-2.0
"""How good a proposer is for a model, computed from distributions and without any draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.law import HeadTailLaw, Law
from qr_sampler_tsd.proposers.base import Proposer
from qr_sampler_tsd.residual import residual_masses

__all__ = ["Evaluation", "evaluate", "overlap_mass"]


def overlap_mass(p: FloatArray, q: Law) -> float:
    """Returns ``sum min(p, q)``, the probability that a draw from *q* is accepted under *p*.

    Args:
        p: Shape ``(V,)``: the target.
        q: The proposal; O(V + K), no dense copy of it is made.
    """
    surplus = residual_masses(p, q, np.empty_like(p))
    return float(p.sum() - surplus.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """A proposer beside a model, place by place of one text."""

    overlaps: FloatArray
    """Shape ``(N,)``: sum of min(p, q) at each place."""
    gaps_nats: FloatArray
    """Shape ``(N,)``: sum of p log(p / q), the cross entropy of q beyond the entropy of p."""
    ratios: FloatArray
    """Shape ``(N - 1,)``: q / p of the token that continues the text."""

    @property
    def acceptance(self) -> float:
        """The mean of :attr:`overlaps`: expected acceptance of a single draft token."""
        return float(self.overlaps.mean())

    @property
    def gap_nats(self) -> float:
        """The mean of :attr:`gaps_nats`."""
        return float(self.gaps_nats.mean())

    def tokens_per_pass(self, length: int, *, joint: bool) -> float:
        """Returns the tokens that a pass of the model yields with drafts of *length*, on average.

        The first i drafts are kept with probability sum over x of q(x) a(x), where a is the rule's
        acceptance of a prefix x of length i. Along a text drawn from p the same sum is the mean of
        q a / p: the product of min(1, q / p) for the token rule (Leviathan et al. 2023, arXiv
        2211.17192), and for block verification (Sun et al. 2025, arXiv 2403.10444) the smallest
        of 1 and all products of q / p over the first j <= i. The mean is over all places of the
        text; where passes begin depends on the drafts, which it leaves out.

        Args:
            length: Drafts of a pass, L, at least 0 and less than the text.
            joint: Block verification; otherwise each token by itself.

        Raises:
            ProposerError: When the text is too short for one pass.
        """
        starts = self.ratios.size - length + 1
        if length < 0 or starts < 1:
            raise ProposerError(f"{self.ratios.size} ratios are too few for drafts of {length}")
        kept, product = np.ones(starts), np.ones(starts)
        total = 1.0
        for place in range(length):
            ratio = self.ratios[place : place + starts]
            product = product * ratio
            kept = np.minimum(kept, product) if joint else kept * np.minimum(ratio, 1.0)
            total += float(kept.mean())
        return total

    @classmethod
    def joined(cls, parts: Sequence[Evaluation]) -> Evaluation:
        """Returns all *parts* as if their texts were one, which blurs a place per seam."""
        return cls(
            overlaps=np.concatenate([part.overlaps for part in parts]),
            gaps_nats=np.concatenate([part.gaps_nats for part in parts]),
            ratios=np.concatenate([part.ratios for part in parts]),
        )


def evaluate(
    proposer: Proposer[Any],
    tokens: Sequence[int],
    laws: FloatArray,
    *,
    before: Sequence[int] = (),
) -> Evaluation:
    """Returns how *proposer* does along one text.

    Args:
        proposer: Starts with *before* and the first token.
        tokens: N tokens, at least one.
        laws: Shape ``(N, V)``: the model's distribution after each of them.
        before: Earlier tokens of the sequence, which are not judged.

    Raises:
        ProposerError: When the shapes do not fit, or a token follows that has no probability.
    """
    if not len(tokens) or laws.shape != (len(tokens), proposer.vocab_size):
        raise ProposerError(
            f"{len(tokens)} tokens from {proposer.vocab_size} do not fit laws of {laws.shape}"
        )
    state = proposer.start([*before, tokens[0]])
    overlaps, gaps, ratios = [], [], []
    for place, p in enumerate(laws):
        q = proposer.psi(state).law()
        overlaps.append(overlap_mass(p, q))
        gaps.append(_gap_nats(p, q))
        if place + 1 < len(tokens):
            following = int(tokens[place + 1])
            if not p[following] > 0:
                raise ProposerError(
                    f"the text goes on with token {following} at place {place + 1}, which the law "
                    "before it excludes"
                )
            ratios.append(q.prob_of(following) / float(p[following]))
            state = proposer.advance(state, following)
    return Evaluation(
        overlaps=np.array(overlaps), gaps_nats=np.array(gaps), ratios=np.array(ratios)
    )


def _gap_nats(p: FloatArray, q: HeadTailLaw) -> float:
    """Returns sum p log(p / q); infinite when q misses what p has."""
    present = np.flatnonzero(p)
    with np.errstate(divide="ignore"):
        logs = np.log(p[present]) - q.log_probs_of(present)
    return float(p[present] @ logs)
