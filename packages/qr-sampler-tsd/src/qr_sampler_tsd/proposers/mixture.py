# SPDX-License-Identifier: Apache-2.0
"""Several proposers as one: a mixture of their distributions, as a payload again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.fitting import RequestShape, fit
from qr_sampler_tsd.proposers.base import Proposer
from qr_sampler_tsd.proposers.masses import psi_of_masses
from qr_sampler_tsd.psi_relative import PsiRelative

__all__ = ["MixedProposer"]

_State: TypeAlias = tuple[Any, ...]

_MOST_KEPT: Final = 256


class MixedProposer(Proposer[_State]):
    """A mixture: each part claims its confidence of what those before it have left.

    What nobody has claimed goes to the last part. Parts that were trained at different temperatures
    are fitted to that of the first which has one.

    Args:
        parts: At least one, of one vocabulary; those that know best when they know come first.

    Raises:
        ProposerError: When there is none, or their vocabularies differ.
    """

    def __init__(self, parts: Sequence[Proposer[Any]]) -> None:
        sizes = sorted({part.vocab_size for part in parts})
        if len(sizes) != 1:
            raise ProposerError(f"a mixture needs parts of one vocabulary, got {sizes}")
        self.parts = tuple(parts)
        """The proposers."""
        self._vocab_size = sizes[0]
        known = [part.temperature for part in parts if part.temperature is not None]
        self._temperature = known[0] if known else None
        self._shape = RequestShape(temperature=self._temperature)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return self._vocab_size

    @property
    def temperature(self) -> float | None:
        """The temperature of the first part that has one."""
        return self._temperature

    def start(self, tokens: Sequence[int]) -> _State:
        """Returns the states of all parts."""
        return tuple(part.start(tokens) for part in self.parts)

    def advance(self, state: _State, token: int) -> _State:
        """Returns their states after one more token."""
        return tuple(part.advance(own, token) for part, own in zip(self.parts, state, strict=True))

    def psi(self, state: _State) -> PsiRelative | None:  # type: ignore[override]
        """Returns the payload of the mixture, ``None`` where no part has an answer."""
        shares = self._shares(state)
        payloads = [
            (share, self._fitted(part, own))
            for part, own, share in zip(self.parts, state, shares, strict=True)
            if share > 0
        ]
        laws = [(share, psi.law()) for share, psi in payloads if psi is not None]
        if not laws:
            return None
        ids: TokenArray = np.unique(np.concatenate([law.ids for _, law in laws]))
        if not ids.size:
            ids = np.zeros(1, dtype=np.int64)
        masses: FloatArray = np.zeros(ids.size)
        for share, law in laws:
            masses += share * law.probs_of(ids)
        if ids.size > _MOST_KEPT:
            kept = np.argpartition(-masses, _MOST_KEPT)[:_MOST_KEPT]
            ids, masses = ids[kept], masses[kept]
        return psi_of_masses(ids, masses, max(1 - float(masses.sum()), 0.0), self._vocab_size)

    def confidence(self, state: _State) -> float:
        """Returns the greatest confidence of a part."""
        pairs = zip(self.parts, state, strict=True)
        return max(part.confidence(own) for part, own in pairs)

    def _shares(self, state: _State) -> list[float]:
        left, shares = 1.0, []
        for part, own in zip(self.parts[:-1], state[:-1], strict=True):
            shares.append(left * part.confidence(own))
            left -= shares[-1]
        return [*shares, left]

    def _fitted(self, part: Proposer[Any], state: Any) -> Any:
        psi: Any = part.psi(state)
        if psi is None:
            return None
        fitted = fit(psi, self._shape, part.temperature)
        return psi if fitted is None else fitted
