# SPDX-License-Identifier: Apache-2.0
"""Payloads from the probabilities of a few tokens, without a vector of size V."""

from __future__ import annotations

import numpy as np

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.psi_relative import TOP_CODE, PsiRelative

__all__ = ["psi_of_masses"]

_CODES = 255
_LEAST = 1e-30


def psi_of_masses(
    ids: TokenArray, masses: FloatArray, tail_mass: float, vocab_size: int
) -> PsiRelative:
    """Returns the payload of version 2 whose head has these *masses* beside its tail.

    Args:
        ids: Shape ``(K,)``, K >= 1, different tokens.
        masses: Shape ``(K,)``, at least 0. Where all are 0, the head weighs as much as the tail.
        tail_mass: Of all other tokens together, at least 0.
        vocab_size: Number of tokens, V.

    Raises:
        PsiError: When a value is out of range.
    """
    order = np.argsort(-masses, kind="stable")
    best = float(masses[order[0]])
    if best <= 0:
        # The tokens of the head are as probable as any other one.
        masses, best = np.full(ids.size, 1 / vocab_size), 1 / vocab_size
        tail_mass = 1 - ids.size / vocab_size
    logs = np.log(np.maximum(masses[order], _LEAST * best) / best)
    scale = np.float32(-logs.min() / _CODES)
    steps = logs / scale if scale else logs
    return PsiRelative(
        ids=ids[order].astype(np.int32),
        scores_q8=np.rint(steps + TOP_CODE).clip(-128, 127).astype(np.int8),
        scale=float(scale),
        tau=1.0,
        log_tail=float(np.log(tail_mass / best)) if tail_mass > 0 else -np.inf,
        vocab_size=vocab_size,
    )
