# SPDX-License-Identifier: Apache-2.0
"""What is computed once per context, so that a step does not take O(V)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.experiments.settings import ExperimentSettings
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.psi import PsiTopK
from qr_sampler_tsd.psi_relative import PsiRelative
from qr_sampler_tsd.residual import residual_masses
from qr_sampler_tsd.targets.base import Target
from qr_sampler_tsd.verification import k_seq_acceptance, optimal_division

__all__ = ["Context", "ContextTable", "floor_of", "prepare_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The target after some token, and the proposal for it."""

    p: FloatArray
    """Shape ``(V,)``: the target."""
    cumulative: FloatArray
    """Shape ``(V,)``: its running sum."""
    psi: PsiTopK | PsiRelative
    """The payload."""
    law: HeadTailLaw
    """F(psi)."""
    overlap: float
    """sum min(p, q)."""
    ce_gap_nats: float
    """H(p, q) - H(p), infinite where q lacks a token of p."""
    floor: float
    """:func:`floor_of` the payload."""
    rho: float
    """The division of K-SEQ, 1 for other rules."""
    predicted: float
    """The probability that a draft, or for K-SEQ one of the drafts, is accepted."""


@dataclass(slots=True)
class ContextTable:
    """The contexts that a run has met so far.

    Args:
        target: Gives the rows.
        settings: Give the payloads.
    """

    target: Target
    """Gives the rows."""
    settings: ExperimentSettings
    """Give the payloads."""
    _known: dict[int, Context] = field(default_factory=dict)
    _buffer: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Makes the one buffer of size V."""
        self._buffer = np.empty(self.target.vocab_size)

    def __getitem__(self, context: int) -> Context:
        """Returns what is known of *context*, computed on first use in O(V log V)."""
        known = self._known.get(context)
        if known is None:
            known = self._known[context] = self._prepared(self.target.row(context))
        return known

    def __len__(self) -> int:
        """Returns how many contexts were met."""
        return len(self._known)

    def _prepared(self, p: FloatArray) -> Context:
        psi = self.settings.psi_for(p)
        law = psi.law()
        overlap = 1.0 - float(residual_masses(p, law, self._buffer).sum())
        rho, predicted = 1.0, overlap
        if self.settings.verifier == "k_seq":
            rho = optimal_division(p, law, self.settings.length, self._buffer)
            predicted = k_seq_acceptance(p, law, self.settings.length, self._buffer, rho)
        return Context(
            p=p,
            cumulative=np.cumsum(p),
            psi=psi,
            law=law,
            overlap=overlap,
            ce_gap_nats=_divergence(p, law),
            floor=floor_of(psi),
            rho=rho,
            predicted=predicted,
        )


def prepare_all(table: ContextTable) -> None:
    """Prepares every context of the target, so that no step has to."""
    for context in range(table.target.contexts):
        _ = table[context]


def floor_of(psi: PsiTopK | PsiRelative) -> float:
    """Returns the weight of one token outside the head, beside ``exp(s / tau)``: epsilon."""
    if isinstance(psi, PsiTopK):
        return psi.epsilon
    others = psi.vocab_size - psi.ids.size
    return float(np.exp(psi.log_tail)) / others if others else 0.0


def _divergence(p: FloatArray, law: HeadTailLaw) -> float:
    """Returns the Kullback-Leibler divergence of *law* from *p* in nats: the cross-entropy gap."""
    held = np.flatnonzero(p)
    q = law.probs_of(held)
    if not q.all():
        return float("inf")
    return max(0.0, float(p[held] @ np.log(p[held] / q)))
