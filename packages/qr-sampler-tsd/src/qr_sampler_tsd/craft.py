# SPDX-License-Identifier: Apache-2.0
"""Payloads from a known distribution: what the best proposer for that distribution would send.

Such a payload comes from the target itself, so experiments call its proposer an oracle.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from qr_sampler_tsd._typing import FloatArray, IdArray, ScoreCodes, TokenArray
from qr_sampler_tsd.errors import PsiError
from qr_sampler_tsd.psi import PsiTopK
from qr_sampler_tsd.psi_relative import TOP_CODE, PsiRelative

__all__ = ["craft_psi", "craft_relative_psi"]

_SMALLEST_SCALE = 1e-6


def craft_psi(p: ArrayLike, k: int, tau: float = 1.0, epsilon: float | None = None) -> PsiTopK:
    """Returns the payload of version 1 for the distribution *p*.

    The scores are ``log p`` of the k most probable tokens, ties by ascending id, in symmetric 8-bit
    codes. The floor that gives the tail its true mass at any *tau* follows from the head mass h of
    *p* and the weight S of the payload's own head: S / (S + (V - K) epsilon) = h. At tau = 1 it is
    (1 - h) / (V - K), but for the rounding of scores.

    Args:
        p: Shape ``(V,)``: probabilities.
        k: Tokens of the head, 1 to V; those of probability 0 are left out of it.
        tau: Temperature of the scores.
        epsilon: The floor, ``None`` for the one above.

    Raises:
        PsiError: When *p* is no distribution, or a value is out of range.
    """
    law, ids = _law_and_head(p, k)
    logs = np.log(law[ids])
    scale = np.float32(max(float(np.abs(logs).max()) / 127, _SMALLEST_SCALE))
    psi = PsiTopK(
        ids=ids,
        scores_q8=_codes(logs / scale),
        scale=float(scale),
        zero_point=0,
        tau=tau,
        epsilon=0.0 if epsilon is None else epsilon,
        vocab_size=law.size,
    )
    others = law.size - ids.size
    if epsilon is not None or not others:
        return psi
    odds = _tail_odds(law, ids)
    weight = float(np.exp(psi.scores / psi.tau).sum())
    return replace(psi, epsilon=weight * odds / others)


def craft_relative_psi(p: ArrayLike, k: int, tau: float = 1.0) -> PsiRelative:
    """Returns the payload of version 2 for *p*, its tail at its true mass at any *tau*.

    Args:
        p: Shape ``(V,)``: probabilities.
        k: Tokens of the head, 1 to V; those of probability 0 are left out of it.
        tau: Temperature of the scores.

    Raises:
        PsiError: When *p* is no distribution, or a value is out of range.
    """
    law, ids = _law_and_head(p, k)
    logs = np.log(law[ids])
    logs -= logs.max()
    scale = np.float32(-logs.min() / 255)
    steps = logs / scale if scale else logs
    psi = PsiRelative(
        ids=ids,
        scores_q8=_codes(steps + TOP_CODE),
        scale=float(scale),
        tau=tau,
        log_tail=-np.inf,
        vocab_size=law.size,
    )
    odds = _tail_odds(law, ids)
    if not odds:
        return psi
    weight = float(np.exp(psi.scores / psi.tau).sum())
    return replace(psi, log_tail=float(np.log(weight) + np.log(odds)))


def _law_and_head(p: ArrayLike, k: int) -> tuple[FloatArray, IdArray]:
    """Returns *p*, summing to 1, and its k best tokens that have probability."""
    given = np.asarray(p, dtype=np.float64)
    if given.ndim != 1 or not given.size:
        raise PsiError(f"p must be a vector of probabilities, got the shape {given.shape}")
    with np.errstate(over="ignore"):
        total = float(given.sum())
    if not ((given >= 0).all() and 0 < total < np.inf):
        raise PsiError(f"p must hold finite probabilities of a sum above 0; the sum is {total}")
    if not 1 <= k <= given.size:
        raise PsiError(f"k={k} must be from 1 to the vocabulary size {given.size}")
    law = given / total
    best = _best(law, k)
    return law, best[law[best] > 0].astype(np.int32)


def _best(p: FloatArray, k: int) -> TokenArray:
    """Returns the k largest entries, best first, ties by ascending id."""
    bar = np.partition(p, p.size - k)[p.size - k]
    candidates = np.flatnonzero(p >= bar)
    return candidates[np.argsort(-p[candidates], kind="stable")[:k]]


def _codes(steps: FloatArray) -> ScoreCodes:
    return np.rint(steps).clip(-128, 127).astype(np.int8)


def _tail_odds(law: FloatArray, ids: IdArray) -> float:
    """Returns the mass outside *ids* over the mass of *ids*."""
    outside = law.copy()
    outside[ids] = 0
    return float(outside.sum() / law[ids].sum())
