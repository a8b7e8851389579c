# SPDX-License-Identifier: Apache-2.0
"""A payload per previous token, made beforehand: the cheapest proposer that learns anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from qr_sampler_tsd._typing import IdArray, TokenArray
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers.base import (
    Proposer,
    checked_context,
    checked_temperature,
    checked_token,
)
from qr_sampler_tsd.psi_relative import PsiRelative

__all__ = ["BigramProposer"]

_Scalar = TypeVar("_Scalar", bound=np.generic)

_MOST_READ: Final = 4096
"""Payloads that are kept as objects, some 2 kB each."""


class BigramProposer(Proposer[int]):
    """Looks the payload up by the last token; its state is that token.

    The payloads lie behind one another in one array of bytes, so that a table for V tokens takes
    V (5 K + 14) bytes and 12 V more for finding them: 53 MB for V = 151,936 and K = 64. Payload 0
    is for every previous token that has none of its own.

    Args:
        payloads: Shape ``(N,)``, uint8: the bytes of R >= 1 payloads of version 2.
        offsets: Shape ``(R + 1,)``, int64: payload r is ``payloads[offsets[r]:offsets[r + 1]]``.
        rows: Shape ``(V,)``, int32: which payload follows each token.
        temperature: Of what the payloads say, above 0; ``None`` where it is not known.

    Raises:
        ProposerError: When the arrays do not fit each other, or a payload is of another vocabulary.
        PsiError: When a payload is malformed. All are read once, so that none can fail later.

    Examples:
        >>> from qr_sampler_tsd import craft_relative_psi
        >>> unigram = craft_relative_psi([0.25, 0.5, 0.25], k=1)
        >>> after_2 = craft_relative_psi([0.9, 0.1, 0.0], k=2)
        >>> table = BigramProposer.from_payloads(unigram, {2: after_2})
        >>> [table.psi(table.start([token])).ids.tolist() for token in range(3)]
        [[1], [1], [0, 1]]
    """

    def __init__(
        self,
        payloads: NDArray[np.uint8],
        offsets: TokenArray,
        rows: IdArray,
        temperature: float | None = None,
    ) -> None:
        _check_table(payloads, offsets, rows)
        self._temperature = checked_temperature(temperature)
        # Tokens that a text repeats have their payload read once.
        self._read = lru_cache(_MOST_READ)(self._payload)
        self.payloads = _private(payloads)
        """The bytes of all payloads, read-only."""
        self.offsets = _private(offsets)
        """Where each payload begins, and where the last one ends; read-only."""
        self.rows = _private(rows)
        """Which payload follows each token, read-only."""
        for row in range(offsets.size - 1):
            row_size = self._payload(row).vocab_size
            if row_size != rows.size:
                raise ProposerError(
                    f"payload {row} is of a vocabulary of {row_size} tokens, the table of "
                    f"{rows.size}"
                )

    @classmethod
    def from_payloads(
        cls,
        unigram: PsiRelative,
        by_token: Mapping[int, PsiRelative],
        temperature: float | None = None,
    ) -> BigramProposer:
        """Returns the table of *by_token*, and *unigram* for all other previous tokens.

        Args:
            unigram: For tokens that have no payload of their own.
            by_token: The payload that follows each token.
            temperature: As for the class.

        Raises:
            ProposerError: When a key is outside the vocabulary, or vocabularies differ.
        """
        rows = np.zeros(unigram.vocab_size, dtype=np.int32)
        pieces = [unigram.to_bytes()]
        for token, psi in by_token.items():
            rows[checked_token(token, unigram.vocab_size)] = len(pieces)
            pieces.append(psi.to_bytes())
        offsets = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(pieces), np.uint8), offsets, rows, temperature)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return self.rows.size

    @property
    def temperature(self) -> float | None:
        """The temperature of what the payloads say; ``None`` where it is not known."""
        return self._temperature

    @property
    def size_bytes(self) -> int:
        """Memory of the table."""
        return self.payloads.nbytes + self.offsets.nbytes + self.rows.nbytes

    def start(self, tokens: Sequence[int]) -> int:
        """Returns the last of *tokens*."""
        return checked_context(tokens, 1, self.vocab_size)[0]

    def advance(self, state: int, token: int) -> int:
        """Returns *token*."""
        return checked_token(token, self.vocab_size)

    def psi(self, state: int) -> PsiRelative:
        """Returns the payload that follows the token *state*."""
        return self._read(int(self.rows[state]))

    def _payload(self, row: int) -> PsiRelative:
        begin, end = self.offsets[row : row + 2]
        return PsiRelative.from_bytes(self.payloads[begin:end].tobytes())


def _check_table(payloads: NDArray[np.uint8], offsets: TokenArray, rows: IdArray) -> None:
    for name, array, dtype in (
        ("payloads", payloads, np.uint8),
        ("offsets", offsets, np.int64),
        ("rows", rows, np.int32),
    ):
        if array.ndim != 1 or array.dtype != dtype or not array.size:
            raise ProposerError(
                f"{name} must be a filled vector of {dtype.__name__}, got {array.dtype} of shape "
                f"{array.shape}"
            )
    if offsets.size < 2 or offsets[0] != 0 or offsets[-1] != payloads.size:
        raise ProposerError(f"offsets must run from 0 to the {payloads.size} bytes of payloads")
    if (np.diff(offsets) <= 0).any():
        raise ProposerError("offsets must ascend")
    if rows.min() < 0 or rows.max() >= offsets.size - 1:
        raise ProposerError(
            f"rows name payloads {rows.min()} to {rows.max()}; there are {offsets.size - 1}"
        )


def _private(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    copy: NDArray[_Scalar] = array.copy()
    copy.flags.writeable = False
    return copy
