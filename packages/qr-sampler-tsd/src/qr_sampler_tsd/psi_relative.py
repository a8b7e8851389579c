# SPDX-License-Identifier: Apache-2.0
"""The payload psi, version 2: scores relative to the best token, and a float32 tail.

Version 1 cannot say what real vocabularies need. A tail mass of 1 among 32,000 tokens is a floor of
3e-5, where float16 is already subnormal; below a tail mass of V 2**-25 the floor is stored as 0 and
no tail token can be proposed. And its scores, logarithms of probabilities, use half of the codes.
Version 2 spends one byte more, 5 K + 14.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from qr_sampler_tsd._typing import FloatArray, IdArray, ScoreCodes, TokenArray
from qr_sampler_tsd.errors import PsiError
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.psi_fields import (
    Payload,
    as_stored,
    checked_codes,
    checked_exclusion,
    checked_ids,
    checked_vocab_size,
    nothing_excluded,
    rounded,
)

__all__ = ["TOP_CODE", "PsiRelative"]

TOP_CODE: Final = 127
"""The code of the score 0."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PsiRelative(Payload):
    """Payload of version 2, immutable.

    Raises:
        PsiError: For any value that the fields forbid; nothing is clipped or wrapped.

    Examples:
        >>> psi = PsiRelative(
        ...     ids=[5, 2], scores_q8=[127, 117], scale=0.1, tau=1.0, log_tail=np.log(0.75),
        ...     vocab_size=8,
        ... )
        >>> psi.size_bytes, PsiRelative.from_bytes(psi.to_bytes()) == psi
        (24, True)
        >>> psi.law().probs_of([5, 2, 0]).round(4).tolist()
        [0.4722, 0.1737, 0.059]
    """

    VERSION = "2.0.0"
    """Version of schema, bytes and distribution."""
    FIXED = struct.Struct("<fefi")
    FIXED_FIELDS = ("scale", "tau", "log_tail", "vocab_size")

    ids: IdArray
    """Shape ``(K,)``, K >= 1, int32: different tokens, best first."""
    scores_q8: ScoreCodes
    """Shape ``(K,)``, int8: ``s = (code - 127) scale``, at most 0, natural-log units."""
    scale: float
    """At least 0, float32; 0 when all scores are equal."""
    tau: float
    """Temperature of the scores, above 0, float16."""
    log_tail: float
    """Natural logarithm of the weight of the *whole* tail beside ``exp(s / tau)``; float32, finite
    or ``-inf``. An exclusion takes its share with it: each tail token weighs ``exp(log_tail) /
    (V - K)`` whatever is excluded."""
    vocab_size: int
    """Number of tokens, V."""
    excluded: TokenArray = field(default_factory=nothing_excluded)
    """The mask, ascending: tokens of probability 0. Travels beside the bytes."""

    def __post_init__(self) -> None:
        """Checks every field and rounds it to what the bytes hold."""
        vocab_size = checked_vocab_size(self.vocab_size)
        ids = checked_ids(self.ids, vocab_size)
        for name, value in {
            "vocab_size": vocab_size,
            "ids": ids,
            "scores_q8": checked_codes(self.scores_q8, ids.size),
            "scale": rounded(self.scale, np.float32, "scale", positive=False),
            "tau": rounded(self.tau, np.float16, "tau", positive=True),
            "log_tail": _rounded_log(self.log_tail),
            "excluded": checked_exclusion(self.excluded, vocab_size),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def scores(self) -> FloatArray:
        """Shape ``(K,)``: the de-quantised scores, natural-log units, at most 0."""
        return (self.scores_q8.astype(np.float64) - TOP_CODE) * self.scale

    def law(self) -> HeadTailLaw:
        """Returns F(psi).

        Raises:
            PsiError: When the exclusion leaves nothing that has probability.
        """
        others = self.vocab_size - self.ids.size
        share = self.log_tail - np.log(others) if others else -np.inf
        scores = self.scores / self.tau
        return HeadTailLaw(self.ids, scores, float(share), self.vocab_size, self.excluded)


def _rounded_log(value: object) -> float:
    held = as_stored(value, np.float32, "log_tail")
    if np.isnan(held) or held == np.inf:
        raise PsiError(f"log_tail={value!r} must be a number that float32 holds, or -inf")
    return held
