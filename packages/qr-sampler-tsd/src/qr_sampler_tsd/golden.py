# SPDX-License-Identifier: Apache-2.0
"""Golden payloads: the fixed set that a sampling unit has to draw from faithfully.

Heads are those of a language model's next token, steep and flat; see :func:`golden_payloads`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np

from qr_sampler_tsd._typing import IdArray, ScoreCodes, TokenArray
from qr_sampler_tsd.psi import PsiTopK
from qr_sampler_tsd.psi_fields import Psi, nothing_excluded
from qr_sampler_tsd.psi_relative import TOP_CODE, PsiRelative

__all__ = ["golden_payloads"]

_VOCAB_SIZE: Final = 50_257
_HEAD: Final = 63
_EXPONENT: Final = 1.1


def golden_payloads() -> MappingProxyType[str, Psi]:
    """Returns the payloads by name.

    * ``flat``, ``warm``, ``cold``: one head of 63 tokens at temperatures 1, 0.7 and 0.35 (most
      probable token .19, .43, .85; tail .23, .05, 1e-5), V = 50,257, version 2.
    * ``v1``: version 1, V = 1,000; ``v1_subnormal``: V = 50,257 with a floor that float16 holds as
      a subnormal number.
    * ``excluded``: ``warm`` without its best token, some others of the head and a third of the
      tail.
    * ``single``: K = 1, and ``whole``: K = V, no tail.
    * ``wide``: nearly everything in a tail of 2**31 - 4 tokens, which takes 31 random bits; the 24
      bits of a float32 number show there.
    """
    return MappingProxyType(
        {
            "flat": _relative(tau=1.0, tail=0.23),
            "warm": _relative(tau=0.7, tail=0.05),
            "cold": _relative(tau=0.35, tail=1e-5),
            "v1": _top_k(vocab_size=1_000, tail=0.3),
            "v1_subnormal": _top_k(vocab_size=_VOCAB_SIZE, tail=0.1),
            "excluded": _relative(tau=0.7, tail=0.05, excluded=_exclusion()),
            "single": PsiTopK(
                ids=np.array([412], dtype=np.int32),
                scores_q8=np.array([0], dtype=np.int8),
                scale=0.01,
                zero_point=0,
                tau=1.0,
                epsilon=2.0**-10,
                vocab_size=1_000,
            ),
            "whole": PsiTopK(
                ids=np.array([3, 0, 4, 1, 2], dtype=np.int32),
                scores_q8=np.array([100, 90, 80, 60, 30], dtype=np.int8),
                scale=0.04,
                zero_point=100,
                tau=0.9,
                epsilon=0.0,
                vocab_size=5,
            ),
            "wide": PsiRelative(
                ids=np.array([2**31 - 2, 7, 2**30], dtype=np.int32),
                scores_q8=np.array([127, 100, 0], dtype=np.int8),
                scale=0.02,
                tau=1.0,
                log_tail=4.0,
                vocab_size=2**31 - 1,
            ),
        }
    )


def _ids(vocab_size: int) -> IdArray:
    """Returns the head's tokens, spread over the vocabulary: the factor is a prime."""
    return ((np.arange(_HEAD) * 7_919 + 13) % vocab_size).astype(np.int32)


def _codes() -> ScoreCodes:
    """Returns 255 steps of a power distribution, ``-ln(rank)`` from 0 to ``-ln K``."""
    logs = np.log(np.arange(1, _HEAD + 1)) / np.log(_HEAD)
    codes: ScoreCodes = (TOP_CODE - np.rint(255 * logs)).astype(np.int8)
    return codes


def _scale() -> float:
    return float(np.float32(_EXPONENT * np.log(_HEAD) / 255))


def _relative(tau: float, tail: float, excluded: TokenArray | None = None) -> PsiRelative:
    weight = np.exp((_codes().astype(np.float64) - TOP_CODE) * _scale() / tau).sum()
    return PsiRelative(
        ids=_ids(_VOCAB_SIZE),
        scores_q8=_codes(),
        scale=_scale(),
        tau=tau,
        log_tail=float(np.log(weight * tail / (1 - tail))),
        vocab_size=_VOCAB_SIZE,
        excluded=nothing_excluded() if excluded is None else excluded,
    )


def _top_k(vocab_size: int, tail: float) -> PsiTopK:
    weight = np.exp((_codes().astype(np.float64) - TOP_CODE) * _scale()).sum()
    return PsiTopK(
        ids=_ids(vocab_size),
        scores_q8=_codes(),
        scale=_scale(),
        zero_point=TOP_CODE,
        tau=1.0,
        epsilon=float(weight * tail / (1 - tail) / (vocab_size - _HEAD)),
        vocab_size=vocab_size,
    )


def _exclusion() -> TokenArray:
    head = _ids(_VOCAB_SIZE)
    return np.union1d(np.arange(0, _VOCAB_SIZE, 3), head[[0, 5, 6, 40]])
