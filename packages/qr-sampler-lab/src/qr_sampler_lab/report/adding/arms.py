# SPDX-License-Identifier: Apache-2.0
"""Which tokens belong to one arm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler_lab.tables.columns import LABELS, TokenChunk
from qr_sampler_lab.tables.errors import TablesError

__all__ = ["BY", "ArmKey", "checked_columns", "split"]

BY: Final = tuple(name for name in LABELS if name not in ("amplifier", "baseline"))
"""Columns that tokens can be split by. By their amplifier, baseline and block length they always
are: numbers from different lattices have no common law."""

ALWAYS: Final = ("amplifier", "baseline", "block_bytes")

SELECTED_ROLES: Final = ("proposal", "accept")
"""Roles of numbers that are a token's only if it was accepted, which depends on what they chose: u
of such tokens is not uniform though every number drawn is."""

_ROOM: Final = 2**62


class ArmKey(NamedTuple):
    """What all tokens of an arm have in common."""

    texts: tuple[str | None, ...]
    """Their labels, in the order of the columns that were asked for."""
    fallback: bool
    """Whether their source is a fallback; always false where tokens are not split by source."""
    amplifier: str | None
    """Their amplifier; ``None`` in tables that are blind."""
    baseline: str
    """Digest of their baseline, or empty."""
    block_bytes: int
    """Length of their blocks; 0 where several numbers decide a token, and in blind tables."""
    drafted: bool = False
    """Whether they are accepted drafts: see :data:`SELECTED_ROLES`."""

    def name(self, columns: Sequence[str], among: Iterable[ArmKey]) -> str:
        """Returns a name that tells the arm from *among*, for people."""
        others = list(among)
        parts = [
            f"{'no ' + column if text is None else text}"
            + (" (fallback)" if self.fallback and column == "source" else "")
            for column, text in zip(columns, self.texts, strict=True)
        ]
        parts += [
            str(getattr(self, field)) + (" bytes" if field == "block_bytes" else "")
            for field in ALWAYS
            if len({getattr(other, field) for other in others}) > 1 and getattr(self, field)
        ]
        if self.drafted and not all(other.drafted for other in others):
            parts.append("accepted drafts")
        return ", ".join(parts) or "all tokens"


def checked_columns(told: str) -> tuple[str, ...]:
    """Returns the columns that a list with commas names.

    Raises:
        TablesError: When there is no such column.
    """
    names = tuple(dict.fromkeys(name.strip() for name in told.split(",") if name.strip()))
    for name in names:
        if name not in BY:
            raise TablesError(f"tokens cannot be split by {name!r}; use any of {', '.join(BY)}")
    return names


def split(chunk: TokenChunk, columns: Sequence[str]) -> Iterator[tuple[ArmKey, NDArray[np.intp]]]:
    """Yields the arms of which a chunk has tokens, with the indices of these in order."""
    told = [getattr(chunk, name) for name in columns]
    lengths = np.where(chunk.numbers == 1, chunk.block_bytes, 0)
    fallen = chunk.fallback if "source" in columns else np.zeros(len(chunk), np.bool_)
    keys: list[NDArray[Any]] = [labels.codes for labels in told]
    roles = [code for code, name in enumerate(chunk.role.names) if name in SELECTED_ROLES]
    drafted = np.isin(chunk.role.codes, roles)
    keys += [chunk.amplifier.codes, chunk.baseline.codes, lengths, fallen, drafted]
    firsts, arms = _distinct(keys, len(chunk))
    for number, first in enumerate(firsts.tolist()):
        key = ArmKey(
            tuple(labels.names[labels.codes[first]] for labels in told),
            bool(fallen[first]),
            chunk.amplifier.names[chunk.amplifier.codes[first]],
            chunk.baseline.names[chunk.baseline.codes[first]] or "",
            int(lengths[first]),
            bool(drafted[first]),
        )
        yield key, np.flatnonzero(arms == number)


def _distinct(keys: Sequence[NDArray[Any]], size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns where every distinct row of *keys* first is, and which one each row is."""
    mixed = np.zeros(size, dtype=np.int64)
    room = 1
    for key in keys:
        largest = int(key.max()) + 1
        if room * largest > _ROOM:
            mixed = np.unique(mixed, return_inverse=True)[1].astype(np.int64)
            room = int(mixed.max()) + 1
        if largest > 1:
            if largest > 2**20:
                key = np.unique(key, return_inverse=True)[1]
                largest = int(key.max()) + 1
            mixed = mixed * largest + key
            room *= largest
    if room == 1:
        return np.zeros(1, np.intp), mixed
    _, firsts, arms = np.unique(mixed, return_index=True, return_inverse=True)
    return firsts, arms
