# SPDX-License-Identifier: Apache-2.0
"""Tokens as columns, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COLUMNS",
    "EMITTED",
    "LABELS",
    "NOT_EMITTED",
    "SUSPECT",
    "UNKNOWN",
    "Bools",
    "Floats",
    "Integers",
    "Labels",
    "TokenChunk",
]

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

EMITTED: Final = 1
"""``emitted`` of a token that the host went on from, or that its sequence ended with."""

NOT_EMITTED: Final = 0
"""``emitted`` of a token that a later line takes back."""

SUSPECT: Final = "suspect"
"""``health`` of bytes that a good source delivers once in 2**40 draws, or less."""

UNKNOWN: Final = -1
"""``emitted`` of a token of which nobody knows; ``draw`` or ``offset`` of one that has none."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A column of texts of which there are few."""

    codes: NDArray[np.int32]
    """Shape ``(N,)``, index of the text of every token in :attr:`names`."""
    names: Sequence[str | None]
    """The texts; ``None`` is a label that was not given. A code means the same text in all chunks
    of one reading, whose *names* grow."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: Any) -> Labels:
        """Returns the column of some of the tokens: *index* is a slice, a mask or indices."""
        return Labels(self.codes[index], self.names)

    def texts(self) -> list[str | None]:
        """Returns the text of every token."""
        return [self.names[code] for code in self.codes.tolist()]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TokenChunk:
    """Tokens of one or more runs, in the order of (:attr:`received_ns`, :attr:`offset`).

    All columns have the shape ``(N,)``.
    """

    received_ns: Integers
    """When the answer with its bytes was complete, on the monotonic clock of its machine. In tables
    without times, the number of the draw in the order of time."""
    request_ns: Integers
    """When they were asked for, on the same clock; equal to :attr:`received_ns` in tables without
    times."""
    offset: Integers
    """Index of the first of its bytes in the draw, -1 where the ledger does not say."""
    u: Floats
    """The uniform number that selected it, in (0, 1)."""
    statistic: Floats
    """The statistic of the amplifier behind it."""
    lattice_step: Floats
    """Distance between neighbouring values of u near the median; NaN if it is not known."""
    block_bytes: Integers
    """Number of bytes that decided it; 0 in tables that are blind."""
    block_sum: Integers
    """Sum of these bytes."""
    block_ones: Integers
    """Number of one bits among them."""
    temperature: Floats
    """Temperature used."""
    entropy_nats: Floats
    """Entropy of its row at temperature 1."""
    varentropy_nats2: Floats
    """Varentropy of its row at temperature 1."""
    probability: Floats
    """Its probability after temperature and truncation."""
    rank: Integers
    """Its rank, 0 for the most probable."""
    candidates: Integers
    """Number of tokens that truncation kept."""
    token_id: Integers
    """The token; -1 where the text was taken out."""
    position: Integers
    """Its index in its sequence, from 0."""
    sequence: Integers
    """Number of its sequence in this reading."""
    draw: Integers
    """Number of the draw in its run, -1 where the ledger does not say."""
    numbers: Integers
    """How many numbers took part in it; 1 but for drafts."""
    emitted: NDArray[np.int8]
    """:data:`EMITTED`, :data:`NOT_EMITTED` or :data:`UNKNOWN`."""
    fallback: Bools
    """Whether bytes came from the fallback."""
    health: Labels
    """What the health tests said of its bytes: ``ok``, ``suspect`` or ``untested``; ``None`` where
    the ledger or the table does not say."""
    jit: Bools
    """Whether the bytes were asked for when the logits were complete."""
    run: Labels
    """Run that it belongs to."""
    source: Labels
    """Source that supplied the bytes."""
    requested: Labels
    """Source that the request asked for; ``None`` where the ledger does not say."""
    device: Labels
    """Identity that the device reported, or empty."""
    amplifier: Labels
    """Amplifier used."""
    baseline: Labels
    """Digest of the baseline that u refers to, or empty."""
    condition: Labels
    """The client's condition label."""
    trial: Labels
    """The client's trial label."""
    role: Labels
    """What u was drawn for where several numbers take part, else ``None``."""
    outcome: Labels
    """What became of the draft in its place, ``None`` if there was none."""

    def __len__(self) -> int:
        return len(self.u)

    def __getitem__(self, index: Any) -> TokenChunk:
        """Returns some of the tokens: *index* is a slice, a mask or indices."""
        return TokenChunk(**{name: getattr(self, name)[index] for name in COLUMNS})

    @property
    def suspect(self) -> Bools:
        """Whether the health tests found its bytes suspect, shape ``(N,)``."""
        codes = [code for code, name in enumerate(self.health.names) if name == SUSPECT]
        return np.isin(self.health.codes, codes)

    @staticmethod
    def concatenated(chunks: Iterable[TokenChunk]) -> TokenChunk:
        """Returns chunks of one reading as one. There has to be at least one."""
        parts = list(chunks)
        if len(parts) == 1:
            return parts[0]
        return TokenChunk(**{name: _joined([getattr(p, name) for p in parts]) for name in COLUMNS})


COLUMNS: Final = tuple(field.name for field in fields(TokenChunk))
"""Names of the columns of a chunk."""

LABELS: Final = tuple(name for name in COLUMNS if TokenChunk.__annotations__[name] == "Labels")
"""Names of those that hold texts."""


def _joined(columns: list[Any]) -> Any:
    if not isinstance(columns[0], Labels):
        return np.concatenate(columns)
    names = max((column.names for column in columns), key=len)
    return Labels(np.concatenate([column.codes for column in columns]), names)
