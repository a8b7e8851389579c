# SPDX-License-Identifier: Apache-2.0
"""A payload fitted to what a request asks for, before anything is drawn from it.

A proposer is trained at one temperature and without filters. If it says p at the temperature T0, a
request at T has a distribution of the form p^(T0 / T): the scores of the head are divided by T / T0
more than before, and the weight of a tail token is raised to T0 / T. Filters and masks take tokens
out of the head, in the order of the sampling pipeline: top-k, min-p, top-p.

Fitting costs or gains acceptance. The text is exact without it, since the verifier refers to the
distribution of the payload that the drafts were drawn from, whatever that is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.psi import PsiTopK
from qr_sampler_tsd.psi_relative import TOP_CODE, PsiRelative

__all__ = ["RequestShape", "fit"]

_COLDEST = 1e-4
"""Below this tau float16 has few digits, and a payload is as good as its best token."""

_WARMEST = 6e4
"""The greatest tau that float16 holds, and a little room."""

_EXTREME_LOG = 1e30
"""A logarithm of a weight, and with a minus another one, that float32 holds."""

_GREATEST_LOG = 700.0
"""The logarithm of a weight that float64 holds."""

_MOST_EQUAL = 256
"""Most tokens of a head about which the proposer knows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestShape:
    """What a request does to a distribution, as far as that is known before the logits are.

    Made once per request: what takes time in proportion to the vocabulary is done here.

    Raises:
        ValueError: When a value is out of range.
    """

    temperature: float | None = None
    """Its temperature; 0 for the most probable token alone, ``None`` where it is not known."""
    top_k: int = 0
    """Keeps the k most probable tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keeps tokens of at least this share of the greatest probability."""
    top_p: float = 1.0
    """Keeps the fewest most probable tokens that reach this probability."""
    allowed: TokenArray | None = None
    """The only tokens that can occur, in any order; ``None`` for all."""
    barred: TokenArray | None = None
    """Tokens that cannot occur, few, in any order."""
    truncate_first: bool = False
    """Whether the filters act on the distribution at temperature 1."""
    is_allowed: NDArray[np.bool_] | None = None
    """What :func:`fit` looks up; made of :attr:`allowed`."""

    def __post_init__(self) -> None:
        """Checks the values, and makes the look-up of what is allowed."""
        temperature = self.temperature
        if temperature is not None and not 0 <= temperature < np.inf:
            raise ValueError(f"temperature={temperature} must be a number of at least 0, or None")
        if self.top_k < 0 or not 0 <= self.min_p <= 1 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_k={self.top_k}, min_p={self.min_p}, top_p={self.top_p}: one is out of range"
            )
        if self.allowed is not None:
            allowed = np.unique(np.asarray(self.allowed, dtype=np.int64))
            if self.barred is not None:
                allowed = np.setdiff1d(allowed, self.barred)
            look_up = np.zeros(int(allowed[-1]) + 1 if allowed.size else 0, dtype=np.bool_)
            look_up[allowed] = True
            object.__setattr__(self, "allowed", allowed)
            object.__setattr__(self, "is_allowed", look_up)

    @property
    def truncates(self) -> bool:
        """Whether a filter may take tokens out that no mask names."""
        return bool(self.top_k) or self.min_p > 0 or self.top_p < 1


def fit(
    psi: PsiTopK | PsiRelative, shape: RequestShape, trained_at: float | None
) -> PsiTopK | PsiRelative | None:
    """Returns *psi* as *shape* has it, ``None`` where that leaves no token.

    Which tokens of the tail a filter keeps is not known, so that a filter leaves the tail out, but
    for a min-p below its weight. So does a mask of allowed tokens that the head has some of; where
    it has none, all of them are equal.

    Args:
        psi: What a proposer says.
        shape: What the request asks for.
        trained_at: The temperature of what the proposer was trained on; ``None`` where it is not
            known, and then the temperature is left as it is.

    Examples:
        >>> from qr_sampler_tsd import craft_relative_psi
        >>> psi = craft_relative_psi([0.5, 0.25, 0.15, 0.1], k=4)
        >>> warm = fit(psi, RequestShape(temperature=0.5), trained_at=1.0)
        >>> warm.law().probs().round(2).tolist()
        [0.73, 0.18, 0.07, 0.03]
        >>> cut = fit(psi, RequestShape(top_k=2, barred=np.array([0])), trained_at=None)
        >>> cut.law().probs().round(2).tolist()
        [0.0, 0.63, 0.37, 0.0]
    """
    kept = _unmasked(psi, shape)
    if shape.allowed is not None and not kept.any():
        return _equal(shape.allowed, psi.vocab_size)
    fitted = _tempered(psi, shape.temperature, trained_at)
    if shape.temperature == 0 and kept.any():
        return _cut(fitted, np.flatnonzero(kept)[[int(psi.scores[kept].argmax())]])
    if not shape.truncates and shape.allowed is None:
        return _with_mask(fitted, shape, kept)
    judged = _tempered(psi, 1.0, trained_at) if shape.truncate_first else fitted
    tail = 0.0 if shape.allowed is not None else _tail_weight(judged)
    places = np.flatnonzero(kept)
    weights = _weights(judged)[places]
    if tail and _tail_stays(tail, weights, shape):
        return _with_mask(fitted, shape, kept)
    if not places.size:
        return None
    return _cut(fitted, places[_truncated(weights, tail * (psi.vocab_size - psi.ids.size), shape)])


def _unmasked(psi: PsiTopK | PsiRelative, shape: RequestShape) -> NDArray[np.bool_]:
    """Returns which tokens of the head can occur, shape ``(K,)``."""
    ids = psi.ids
    kept = np.ones(ids.size, dtype=np.bool_)
    if shape.is_allowed is not None:
        known = ids < shape.is_allowed.size
        kept[known] = shape.is_allowed[ids[known]]
        kept[~known] = False
    for barred in (shape.barred, psi.excluded):
        if barred is not None and barred.size:
            kept &= ~np.isin(ids, barred)
    return kept


def _tempered(
    psi: PsiTopK | PsiRelative, temperature: float | None, trained_at: float | None
) -> PsiTopK | PsiRelative:
    """Returns *psi*, trained at one temperature, at another one; unchanged if one is not known."""
    if temperature is None or trained_at is None or temperature == trained_at:
        return psi
    ratio = max(temperature, _COLDEST) / trained_at
    tau = min(max(psi.tau * ratio, _COLDEST), _WARMEST)
    if isinstance(psi, PsiTopK):
        floor = math.log(psi.epsilon) / ratio if psi.epsilon else -math.inf
        return replace(psi, tau=tau, epsilon=math.exp(min(floor, math.log(_WARMEST))))
    others = max(psi.vocab_size - psi.ids.size, 1)
    share = (psi.log_tail - math.log(others)) / ratio
    log_tail = min(max(share, -_EXTREME_LOG), _EXTREME_LOG) + math.log(others)
    return replace(psi, tau=tau, log_tail=log_tail)


def _weights(psi: PsiTopK | PsiRelative) -> FloatArray:
    """Returns the weights of the head beside :func:`_tail_weight`, shape ``(K,)``."""
    weights: FloatArray = np.exp(np.minimum(psi.scores / psi.tau, _GREATEST_LOG))
    return weights


def _tail_weight(psi: PsiTopK | PsiRelative) -> float:
    """Returns the weight of one token of the tail."""
    others = psi.vocab_size - psi.ids.size
    if isinstance(psi, PsiTopK):
        return psi.epsilon if others else 0.0
    if not others:
        return 0.0
    return math.exp(min(psi.log_tail - math.log(others), _GREATEST_LOG))


def _tail_stays(tail: float, weights: FloatArray, shape: RequestShape) -> bool:
    best = float(weights.max(initial=0.0))
    return not shape.top_k and shape.top_p == 1 and tail >= shape.min_p * best


def _truncated(weights: FloatArray, tail_mass: float, shape: RequestShape) -> TokenArray:
    """Returns the indices of the *weights* that top-k, min-p and top-p keep, best first."""
    order = np.argsort(-weights, kind="stable")
    if shape.top_k:
        order, tail_mass = order[: shape.top_k], 0.0
    best = weights[order]
    if shape.min_p:
        best = best[best >= shape.min_p * best[0]]
    reached = np.cumsum(best)
    bar = shape.top_p * (float(reached[-1]) + tail_mass)
    count = min(int(np.searchsorted(reached, bar, side="left")) + 1, best.size)
    kept: TokenArray = order[:count]
    return kept


def _with_mask(
    psi: PsiTopK | PsiRelative, shape: RequestShape, kept: NDArray[np.bool_]
) -> PsiTopK | PsiRelative | None:
    """Returns *psi* with head and tail, but for what is barred; ``None`` if nothing is left."""
    barred = shape.barred
    if barred is not None and barred.size:
        psi = replace(psi, excluded=np.union1d(psi.excluded, barred))
    if kept.any():
        return psi
    alive = psi.vocab_size - np.union1d(psi.excluded, psi.ids).size
    return psi if alive and _tail_weight(psi) > 0 else None


def _cut(psi: PsiTopK | PsiRelative, places: TokenArray) -> PsiTopK | PsiRelative:
    """Returns *psi* with the tokens at *places* of the head alone."""
    ids, codes, nothing = psi.ids[places], psi.scores_q8[places], np.empty(0, dtype=np.int64)
    if isinstance(psi, PsiTopK):
        return replace(psi, ids=ids, scores_q8=codes, epsilon=0.0, excluded=nothing)
    return replace(psi, ids=ids, scores_q8=codes, log_tail=-np.inf, excluded=nothing)


def _equal(allowed: TokenArray, vocab_size: int) -> PsiRelative | None:
    """Returns a payload of *allowed* tokens, all with the same probability; ``None`` for none."""
    ids = allowed[(allowed >= 0) & (allowed < vocab_size)][:_MOST_EQUAL].astype(np.int32)
    if not ids.size:
        return None
    return PsiRelative(
        ids=ids,
        scores_q8=np.full(ids.size, TOP_CODE, dtype=np.int8),
        scale=0.0,
        tau=1.0,
        log_tail=-np.inf,
        vocab_size=vocab_size,
    )
