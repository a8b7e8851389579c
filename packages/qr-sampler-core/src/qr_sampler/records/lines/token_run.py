# SPDX-License-Identifier: Apache-2.0
"""Tokens of one step that follow each other, as columns: cheaper to hand on than line by line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from math import isfinite, isnan
from struct import Struct
from typing import Any, ClassVar, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from qr_sampler.records.line_kinds import FiniteTokenLine, TokenLine

__all__ = ["Line", "TokenRun", "expanded", "packed"]


_CODES: Final = "qqqqdddddqdqdd"
"""How the columns of numbers are kept: as whole numbers or as doubles, of eight bytes each."""

_TYPES: Final = tuple(map(np.dtype, _CODES))

_MAY_BE_UNKNOWN: Final = 2
"""How many of them, the last, have NaN for what is unknown."""


class TokenRun(msgspec.Struct, array_like=True, gc=False, tag="tokens"):
    """T tokens that one draw has decided. Every list has T values."""

    kind: ClassVar[str] = TokenLine.kind

    draw: int
    """Number of the draw."""
    sequences: list[str]
    positions: list[int]
    token_ids: list[int]
    numbers: bytes
    """The columns of :attr:`~qr_sampler.sampling.columns.StepColumns.numbers`, one after the
    other."""
    baselines: list[str]
    row_digests: list[str]
    emitted: list[bool | None]
    outcomes: list[str | None]

    def lines(self) -> Iterator[TokenLine]:
        """Yields the line of each token."""
        count = len(self.positions)
        values = _numbers(count).unpack(self.numbers)
        columns: list[Any] = [values[at : at + count] for at in range(0, len(values), count)]
        total = sum(values[: -_MAY_BE_UNKNOWN * count])
        for at in range(-_MAY_BE_UNKNOWN, 0):
            columns[at] = [None if isnan(value) else value for value in columns[at]]
            total += sum(filter(None, columns[at]))
        # What is infinite, or no number, makes the sum so.
        form = FiniteTokenLine if isfinite(total) else TokenLine
        return map(
            form,
            self.sequences,
            self.positions,
            self.token_ids,
            repeat(self.draw),
            *columns,
            self.baselines,
            self.row_digests,
            self.emitted,
            self.outcomes,
        )


def packed(columns: Iterable[NDArray[Any]], rows: Sequence[int] | None) -> bytes:
    """Returns columns of numbers as a :class:`TokenRun` has them.

    Args:
        columns: One array for each, D values.
        rows: Which of the values; all of them if not given.
    """
    if rows is not None:
        chosen = list(rows)
        columns = [column[chosen] for column in columns]
    pairs = zip(columns, _TYPES, strict=True)
    return b"".join([np.asarray(column, kind).tobytes() for column, kind in pairs])


@lru_cache(maxsize=1024)
def _numbers(count: int) -> Struct:
    """Returns the form of columns of *count* values each."""
    return Struct("=" + "".join(f"{count}{code}" for code in _CODES))


Line: TypeAlias = tuple[str, "TokenRun | msgspec.Struct | dict[str, Any]"]
"""The kind of a line and its fields, to be encoded as they stand: a Struct leaves defaults out. A
:class:`TokenRun` stands for several."""


def expanded(lines: Iterable[Line]) -> list[Line]:
    """Returns *lines* with every :class:`TokenRun` replaced by what it stands for."""
    found: list[Line] = []
    for line in lines:
        fields = line[1]
        if isinstance(fields, TokenRun):
            found += zip(repeat(fields.kind), fields.lines())
        else:
            found.append(line)
    return found
