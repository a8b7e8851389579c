# SPDX-License-Identifier: Apache-2.0
"""The payload psi, version 1: the K best tokens with 8-bit scores, and a floor for all others.

docs/tsd/payload.md has the schema and the distribution. Both sides compute with the stored values,
so that rounding them costs acceptance and never exactness.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from qr_sampler_tsd._typing import FloatArray, IdArray, ScoreCodes, TokenArray
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.psi_fields import (
    Payload,
    checked_code,
    checked_codes,
    checked_exclusion,
    checked_ids,
    checked_vocab_size,
    nothing_excluded,
    rounded,
)

__all__ = ["PsiTopK"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PsiTopK(Payload):
    """Payload of version 1, immutable.

    Raises:
        PsiError: For any value that the fields forbid; nothing is clipped or wrapped.

    Examples:
        >>> psi = PsiTopK(
        ...     ids=[5, 2], scores_q8=[0, -10], scale=0.1, zero_point=0, tau=1.0, epsilon=0.125,
        ...     vocab_size=8,
        ... )
        >>> psi.size_bytes, PsiTopK.from_bytes(psi.to_bytes()) == psi
        (23, True)
        >>> psi.law().probs_of([5, 2, 0]).round(4).tolist()
        [0.4722, 0.1737, 0.059]
    """

    VERSION = "1.0.0"
    """Version of schema, bytes and distribution."""
    FIXED = struct.Struct("<fbeei")
    FIXED_FIELDS = ("scale", "zero_point", "tau", "epsilon", "vocab_size")

    ids: IdArray
    """Shape ``(K,)``, K >= 1, int32: different tokens, best first."""
    scores_q8: ScoreCodes
    """Shape ``(K,)``, int8: ``s = (code - zero_point) scale``, natural-log units."""
    scale: float
    """Above 0, float32."""
    zero_point: int
    """-128 to 127."""
    tau: float
    """Temperature of the scores, above 0, float16."""
    epsilon: float
    """Weight of one token outside the head, beside ``exp(s / tau)``; at least 0, float16. Rounded
    to 0 below 2**-25, which real vocabularies reach: see :mod:`qr_sampler_tsd.psi_relative`."""
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
            "scale": rounded(self.scale, np.float32, "scale", positive=True),
            "zero_point": checked_code(self.zero_point, "zero_point"),
            "tau": rounded(self.tau, np.float16, "tau", positive=True),
            "epsilon": rounded(self.epsilon, np.float16, "epsilon", positive=False),
            "excluded": checked_exclusion(self.excluded, vocab_size),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def scores(self) -> FloatArray:
        """Shape ``(K,)``: the de-quantised scores, natural-log units."""
        return (self.scores_q8.astype(np.float64) - self.zero_point) * self.scale

    def law(self) -> HeadTailLaw:
        """Returns F(psi).

        Raises:
            PsiError: When the exclusion leaves nothing that has probability.
        """
        floor = np.log(self.epsilon) if self.epsilon else -np.inf
        scores = self.scores / self.tau
        return HeadTailLaw(self.ids, scores, float(floor), self.vocab_size, self.excluded)
