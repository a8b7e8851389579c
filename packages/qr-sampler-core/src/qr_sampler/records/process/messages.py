# SPDX-License-Identifier: Apache-2.0
"""What an engine and the process that writes its ledger say to each other.

A message is its length, eight bytes with the most significant first, and so many bytes of
MessagePack. Both ends are the same installation.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import msgspec

from qr_sampler.records.chain import Item
from qr_sampler.records.files import Continues, LedgerWriter
from qr_sampler.records.files.gaps import Gap
from qr_sampler.records.files.standing import Standing as FileStanding
from qr_sampler.records.lines.token_run import TokenRun

__all__ = [
    "READY",
    "End",
    "Lose",
    "MadeLine",
    "Prepare",
    "Reply",
    "Request",
    "Standing",
    "Start",
    "Write",
    "items_of",
    "receive",
    "send",
]

READY: Final = b""
"""The first message of the process, which takes a moment to start."""

_LENGTH: Final = struct.Struct(">Q")

_MOST_BYTES: Final = 2**30
"""Longest message; no batch of records comes near it."""

_PIECE_BYTES: Final = 2**20
"""Most bytes that are read at once, for each of which room is made before."""


class Lose(msgspec.Struct, array_like=True, tag="lose"):
    """Lines are missing: the arguments of ``LedgerWriter.lose``."""

    reason: str
    missing: dict[str, int]
    since_wall_ns: int


class Standing(msgspec.Struct, array_like=True):
    """Where the ledger stands."""

    path: bytes
    """The file that is being written."""
    lines: int
    """Number of its whole lines."""
    head: str
    """Digest of the last of them."""
    totals: dict[str, int]
    """Number of its lines by kind, an unfinished one included."""
    closed: bool
    """Whether the last of them ends it."""
    continues: Continues | None
    """What the file goes on from."""
    waiting: dict[str, int]
    """Number of lines that wait for the disk, by kind, without gaps."""
    gaps: list[Lose]
    """The gaps that do."""
    files: int
    """How many files have been begun."""
    lost: int
    given_up: int
    refuses: bool
    """As of a ``LedgerWriter``, like the two before."""

    @classmethod
    def of(cls, writer: LedgerWriter, files: int) -> Standing:
        """Returns where the ledger of *writer* stands.

        Args:
            writer: Writes it.
            files: How many files it has begun.
        """
        file = writer.file
        lines, head = file.whole
        waiting = writer.waiting
        return cls(
            path=os.fsencode(file.path),
            lines=lines,
            head=head,
            totals=dict(file.totals),
            closed=file.closed and not file.rest,
            continues=writer.continues,
            waiting=dict(Counter(kind for kind, each in waiting if not isinstance(each, Gap))),
            gaps=[
                Lose(each.reason, dict(each.missing), each.since_wall_ns)
                for _, each in waiting
                if isinstance(each, Gap)
            ],
            files=files,
            lost=writer.lost,
            given_up=writer.given_up,
            refuses=writer.refuses,
        )

    def continued_by(self, writer: LedgerWriter, *, begun: bool = True) -> None:
        """Has *writer* go on from here; what waits is not part of that.

        Args:
            writer: The writer.
            begun: As of its ``take_up``.
        """
        last_kind = "close" if self.closed else ""
        standing = FileStanding(self.lines, self.head, Counter(self.totals), last_kind)
        name = Path(os.fsdecode(self.path)).name
        writer.take_up(name, standing, self.continues, self.given_up, begun=begun)


class Start(msgspec.Struct, array_like=True, tag="start"):
    """How the ledger is written, the arguments of a ``LedgerWriter``, and where it stands."""

    path: bytes
    """The first file, as the system names it."""
    genesis: bytes
    """The fields of its first line, as JSON."""
    seal: str
    blinded: list[str]
    max_bytes: int
    held: int
    sync_s: float
    standing: Standing | None = None
    """Known when the process takes over."""


class MadeLine(msgspec.Struct, array_like=True, tag="line"):
    """A line but for its place in the chain."""

    kind: str
    fields: bytes
    """They are JSON already."""


class Prepare(msgspec.Struct, array_like=True, tag="prepare"):
    """Another file is to be begun if that is necessary."""


class Write(msgspec.Struct, array_like=True, tag="write"):
    """Lines to be written."""

    items: list[MadeLine | TokenRun]


class End(msgspec.Struct, array_like=True, tag="end"):
    """The ledger is over."""


Request: TypeAlias = Start | Prepare | Write | Lose | End


class Reply(msgspec.Struct, array_like=True):
    """The answer to every request."""

    standing: Standing
    said: list[tuple[str, int, str]]
    """What was logged since the last one: by whom, at what level, and the words."""


class _Ends(Protocol):
    """An end of a pipe, without a buffer."""

    def read(self, size: int, /) -> bytes | None: ...

    def write(self, data: memoryview, /) -> int | None: ...


def items_of(items: Iterable[MadeLine | TokenRun]) -> list[Item]:
    """Returns what a ``LedgerWriter`` is given of *items*."""
    found: list[Item] = []
    for item in items:
        if isinstance(item, TokenRun):
            found += zip(repeat(item.kind), item.lines())
        else:
            found.append((item.kind, msgspec.Raw(item.fields)))
    return found


def send(pipe: _Ends, message: bytes) -> None:
    """Sends a message.

    Raises:
        OSError: When nobody is there who reads it.
    """
    rest = memoryview(_LENGTH.pack(len(message)) + message)
    while rest:
        rest = rest[pipe.write(rest) or 0 :]


def receive(pipe: _Ends) -> bytes | None:
    """Returns the next message; ``None`` if the other end is closed.

    Raises:
        OSError: When the pipe cannot be read, or what comes is no message.
    """
    head = _exactly(pipe, _LENGTH.size)
    if head is None:
        return None
    size = _LENGTH.unpack(head)[0]
    if size > _MOST_BYTES:
        raise OSError(f"a message of {size} bytes was announced; the longest has {_MOST_BYTES}")
    return _exactly(pipe, size)


def _exactly(pipe: _Ends, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = pipe.read(min(size, _PIECE_BYTES))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
