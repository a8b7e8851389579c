# SPDX-License-Identifier: Apache-2.0
"""What verifiers refuse: arguments for which no rule is exact.

Programs whose targets and proposals are valid by construction call the rules of
:func:`~qr_sampler_tsd.verification.judge_tokens` and
:func:`~qr_sampler_tsd.verification.judge_block`, which check nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import VerificationError
from qr_sampler_tsd.law import Law

__all__ = [
    "SUM_TOLERANCE",
    "check_block",
    "check_buffer",
    "check_draft",
    "check_proposal",
    "check_rows",
    "check_running_sum",
    "check_target",
]

SUM_TOLERANCE: Final = 1e-6
"""How far from 1 the sum of a target may be: what a softmax in float32 leaves."""


def check_block(rows: int, proposals: int, drafts: int) -> None:
    """Checks that a block of L drafts has L proposals and L + 1 target rows.

    Raises:
        VerificationError: When it has not, or there is no draft.
    """
    if drafts < 1 or proposals != drafts or rows != drafts + 1:
        raise VerificationError(
            f"L drafts need L proposals and L + 1 target rows, L >= 1; got {drafts} drafts, "
            f"{proposals} proposals and {rows} rows"
        )


def check_target(p: FloatArray) -> None:
    """Checks that *p* is a vector of probabilities. O(V).

    Raises:
        VerificationError: When it is none: negative, NaN, or of another sum than 1.
    """
    if p.ndim != 1 or not p.size:
        raise VerificationError(f"a target has the shape (V,), got {p.shape}")
    if not p.min() >= 0:
        raise VerificationError(
            f"a target holds {p.min()}; probabilities are numbers of at least 0"
        )
    _check_sum(float(p.sum()))


def check_running_sum(p: FloatArray, cumulative: FloatArray) -> None:
    """Checks in O(1) what a running sum tells of the target that it was made of.

    Raises:
        VerificationError: When it has another shape, or does not end at 1.
    """
    if cumulative.shape != p.shape:
        raise VerificationError(
            f"the running sum has the shape {cumulative.shape} and the target {p.shape}"
        )
    _check_sum(float(cumulative[-1]))


def check_proposal(p: FloatArray, q: Law) -> None:
    """Checks that target and proposal are of one vocabulary.

    Raises:
        VerificationError: When they are not.
    """
    if q.vocab_size != p.size:
        raise VerificationError(
            f"the proposal is of a vocabulary of {q.vocab_size} tokens and the target of {p.size}; "
            "they must be of the same model"
        )


def check_draft(token: int, vocab_size: int) -> None:
    """Checks that *token* is one of the vocabulary.

    Raises:
        VerificationError: When it is not, as -1 is not, which would stand for the last one.
    """
    if not 0 <= token < vocab_size:
        raise VerificationError(f"the draft {token} is outside [0, {vocab_size})")


def check_buffer(buffer: FloatArray, vocab_size: int) -> None:
    """Checks that *buffer* can hold masses.

    Raises:
        VerificationError: When it is no float64 of shape ``(V,)``.
    """
    if buffer.shape != (vocab_size,) or buffer.dtype != np.float64:
        raise VerificationError(
            f"the buffer must be float64 of shape ({vocab_size},), got {buffer.dtype} of shape "
            f"{buffer.shape}"
        )


def check_rows(rows: Sequence[FloatArray] | FloatArray, laws: Sequence[Law]) -> None:
    """Checks all target rows of a block, and that they and the proposals are of one vocabulary.

    Raises:
        VerificationError: When one of :func:`check_target` and :func:`check_proposal` refuses.
    """
    for row in rows:
        check_target(row)
        check_proposal(row, laws[0])
    for law in laws[1:]:
        check_proposal(rows[0], law)


def _check_sum(total: float) -> None:
    if not abs(total - 1.0) <= SUM_TOLERANCE:
        raise VerificationError(f"a target has the sum {total}, not 1; divide it by its sum")
