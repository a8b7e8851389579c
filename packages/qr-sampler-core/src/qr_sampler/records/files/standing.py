# SPDX-License-Identifier: Apache-2.0
"""Where the chain of an existing file stands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from qr_sampler.records.chain import ZERO_HEAD, head_of

__all__ = ["Standing", "standing_of"]


class _Line(msgspec.Struct):
    """The part of a line that says where it stands."""

    kind: str
    n: int
    prev: str


@dataclass(slots=True)
class Standing:
    """What a file holds, as far as going on with it needs to know."""

    lines: int = 0
    """Number of whole lines."""
    head: str = ZERO_HEAD
    """Digest of the last of them."""
    totals: Counter[str] = field(default_factory=Counter)
    """Their number by kind."""
    last_kind: str = ""
    """Kind of the last of them."""
    torn_bytes: int = 0
    """Length of what follows the last of them, without the newline, if that has been written."""
    ended: bool = True
    """Whether the file ends with a newline."""


def standing_of(path: Path) -> Standing | None:
    """Returns where the file at *path* stands, ``None`` if it holds no chained line.

    One line at a time is in memory.

    Raises:
        OSError: When the file cannot be read.
    """
    standing = Standing()
    decode = msgspec.json.Decoder(_Line).decode
    with path.open("rb") as file:
        for raw in file:
            line = raw.removesuffix(b"\n")
            standing.ended = len(line) < len(raw)
            try:
                said = decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                standing.torn_bytes = len(line)
                continue
            standing.lines, standing.head = said.n + 1, head_of(line)
            standing.totals[said.kind] += 1
            standing.last_kind = said.kind
            standing.torn_bytes = 0
    return standing if standing.lines else None
