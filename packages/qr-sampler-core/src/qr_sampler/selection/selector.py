# SPDX-License-Identifier: Apache-2.0
"""The contract of selectors: from logits and u to a quantile of the ordered distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from qr_sampler.arrays import FloatArray, IndexArray, Logits
from qr_sampler.rows import Rows
from qr_sampler.selection.laws import RowLaws

__all__ = ["Measurement", "SelectionResult", "Selector"]


@dataclass(slots=True, kw_only=True)
class Measurement:
    """What a selector found out about a batch before temperatures are chosen.

    Not frozen, like all that every step makes anew: that takes several times as long to make.

    Arrays have one entry per decidable row. A row without a finite maximum (all tokens masked, or a
    NaN or +inf among the logits) has no distribution to draw from and is left out.
    """

    lines: IndexArray
    """Shape ``(D,)``, indices of the decidable rows among the B rows of the batch."""
    rows: Rows
    """Parameters of the decidable rows."""
    vocab_size: int
    """Number of columns V, masked tokens included."""
    logits_ready_ns: int
    """``time.monotonic_ns()`` when the logits were known to be complete."""
    entropy_nats: FloatArray
    """Shape ``(D,)``, Shannon entropy at temperature 1."""
    varentropy_nats2: FloatArray
    """Shape ``(D,)``, variance of -ln p at temperature 1."""
    logit_deviation: FloatArray
    """Shape ``(D,)``, standard deviation of the finite logits; NaN where top-n-sigma is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionResult:
    """The token of each row and where it stood."""

    token_ids: IndexArray
    """Shape ``(D,)``."""
    rank: IndexArray
    """Shape ``(D,)``, 0 for the most probable token."""
    probability: FloatArray
    """Shape ``(D,)``, of the token after temperature and truncation, in (0, 1]; a selector may
    round the total that it refers to, by less than 1e-5 of it."""
    candidates: IndexArray
    """Shape ``(D,)``, number of tokens that truncation kept; V where nothing truncates."""


M = TypeVar("M", bound=Measurement)
P = TypeVar("P")


class Selector(Protocol[M, P]):
    """Selects one token per row. All selectors pick the same token for the same logits and u.

    Tokens are ordered by descending logit, ties by ascending token id. The masses of
    :mod:`qr_sampler.selection.masses` at the row's temperature, truncated in the order of
    :mod:`qr_sampler.selection.filters`, make up the distribution. The selected token is the first
    whose cumulative mass, counted from the first kept token, reaches ``u`` times the total of the
    kept ones. Masses are whole numbers and the comparison is exact, so a token of mass 0 is never
    selected for u in the open interval (0, 1).

    A selector may keep buffers and is not safe for use by several threads. The logits must stay
    unchanged from :meth:`measure` until :meth:`pick` has returned.
    """

    def measure(
        self,
        logits: Logits,
        rows: Rows,
        temperature: FloatArray,
        settle: IndexArray | None = None,
    ) -> M:
        """Returns the statistics of the decidable rows.

        Args:
            logits: Shape ``(B, V)``, float32; ``-inf`` marks masked tokens.
            rows: The parameters of the B rows.
            temperature: Shape ``(B,)``; NaN where it depends on the statistics.
            settle: Shape ``(B,)``, how many of entropy and varentropy, in this order, the
                temperature depends on: 0, 1 or 2; by default 2 where it is NaN. Rounded to
                ``STATISTICS_STEP`` those are the same for all selectors.
        """

    def prepare(self, measurement: M, temperature: FloatArray) -> P:
        """Returns everything else that can be computed before u is known.

        Args:
            measurement: What :meth:`measure` returned.
            temperature: Shape ``(D,)``, positive, of the decidable rows.
        """

    def pick(self, plan: P, u: FloatArray) -> SelectionResult:
        """Returns the token of each decidable row.

        Args:
            plan: What :meth:`prepare` returned.
            u: Shape ``(D,)``, in the open interval (0, 1).
        """

    def laws(self, plan: P) -> RowLaws:
        """Returns the distributions of the decidable rows that :meth:`pick` draws from.

        Args:
            plan: What :meth:`prepare` returned.
        """
