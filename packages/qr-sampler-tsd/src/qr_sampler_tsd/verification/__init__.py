# SPDX-License-Identifier: Apache-2.0
"""Exact verification: what is emitted follows the target, whatever was proposed.

* :func:`accept_correct` judges one draft, :func:`verify_tokens` a block token by token,
  :func:`verify_block` a block as a whole, :func:`verify_k_seq` several drafts of one position.
* :func:`judge_tokens` and :func:`judge_block` decide which drafts stand from probabilities at the
  drafts alone, for targets that are no dense vectors; the rules above are made of them.
* All are lossless. Rules that change the distribution of the text, such as typical acceptance, are
  left out.
"""

from __future__ import annotations

from qr_sampler_tsd.verification.joint_blocks import joint_ratios, judge_block, verify_block
from qr_sampler_tsd.verification.multi_draft import (
    k_seq_acceptance,
    optimal_division,
    verify_k_seq,
)
from qr_sampler_tsd.verification.single import accept_correct, accept_correct_by_thinning
from qr_sampler_tsd.verification.token_blocks import (
    judge_tokens,
    verify_tokens,
    verify_tokens_by_thinning,
)
from qr_sampler_tsd.verification.verdict import Judgement, Rows, Verdict

__all__ = [
    "Judgement",
    "Rows",
    "Verdict",
    "accept_correct",
    "accept_correct_by_thinning",
    "joint_ratios",
    "judge_block",
    "judge_tokens",
    "k_seq_acceptance",
    "optimal_division",
    "verify_block",
    "verify_k_seq",
    "verify_tokens",
    "verify_tokens_by_thinning",
]
