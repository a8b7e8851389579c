# SPDX-License-Identifier: Apache-2.0
"""The records of ledger files, whatever else is in them.

Judging is the audit's: here, a line that is no record is counted and left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from qr_sampler_cli.audit.files import LedgerFile
from qr_sampler_cli.audit.reading.lines import LONGEST_LINE, RawLine, raw_lines
from qr_sampler_cli.audit.reading.version1 import Version1
from qr_sampler_cli.audit.schema.lines import KnownLine
from qr_sampler_cli.audit.schema.run_lines import Gap
from qr_sampler_cli.audit.schema.token_lines import Emission
from qr_sampler_lab.tables.errors import TablesError

__all__ = ["Emissions", "FileLines", "WithoutText"]

MOST_EMISSIONS: Final = 2**19
"""Largest number of ``emission`` lines of a run, all of which are remembered."""

_BLOCK: Final = 2**20
_EMISSION: Final = b'"emission"'
_REDACTED: Final = b'{"kind":"redacted"'

_ID: Final = "token_id"
_TAKEN_OUT: Final[dict[str, dict[str, Any]]] = {
    **{kind: {_ID: 0} for kind in ("token", "forced", "undecided", "emission")},
    "draw": {"commitment": "", "signature": ""},
    "end": {"link": ""},
}
"""By kind, what stands for fields that were taken out of a line before it was published."""

_known: Final = msgspec.json.Decoder(KnownLine).decode
_any: Final = msgspec.json.Decoder().decode


class WithoutText(msgspec.Struct, gc=False):
    """A record whose token id was taken out before it was published."""

    record: Any
    """The record; what it says of the token id means nothing."""


class FileLines:
    """The records of a file, as far as its last newline when it is opened.

    Args:
        file: The file.
    """

    def __init__(self, file: LedgerFile) -> None:
        self.file = file
        self.head = ""
        """SHA-256 of its last line, once all is read."""
        self.lines = 0
        """Number of lines so far."""
        self.unreadable = 0
        """Number of those that are neither a record nor what a ``gap`` calls torn."""
        self._version1 = Version1() if file.version == 1 else None

    def __iter__(self) -> Iterator[Any]:
        """Yields the records.

        Raises:
            NotALedgerError: When the file cannot be read.
        """
        waiting: tuple[RawLine, list[Any]] | None = None
        for raw in raw_lines(self.file.path):
            if not raw.whole:
                break
            self.lines += 1
            records = self._records(raw)
            if waiting is not None:
                yield from self._unless_torn(*waiting, records)
            waiting = (raw, records)
        if waiting is not None:
            yield from self._unless_torn(*waiting, [])
            self.head = _head_of(waiting[0])

    def _records(self, raw: RawLine) -> list[Any]:
        if raw.size > LONGEST_LINE:
            return []
        if self._version1 is not None:
            return self._version1.decode(raw)[1]
        try:
            return [_without_text(raw.data) if raw.data.startswith(_REDACTED) else _known(raw.data)]
        except (msgspec.MsgspecError, ValueError, LookupError, TypeError, RecursionError):
            return []

    def _unless_torn(self, raw: RawLine, records: list[Any], after: list[Any]) -> list[Any]:
        """Returns the records of a line, none if the line after it is a gap that calls it torn."""
        following = after[0] if after else None
        if isinstance(following, Gap) and following.torn_bytes and following.torn_bytes == raw.size:
            return []
        if not records and not self._is_of_another_kind(raw):
            self.unreadable += 1
        return records

    def _is_of_another_kind(self, raw: RawLine) -> bool:
        """Returns whether a line is a link of the chain whose kind is not known here."""
        try:
            values = _any(raw.data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        kind = values.get("kind") if isinstance(values, dict) else None
        return isinstance(kind, str) and kind not in _KINDS_OF_TABLES


_KINDS_OF_TABLES: Final = frozenset(("genesis", "sequence", "draw", "token", "discard", "redacted"))


def _without_text(data: bytes) -> Any:
    """Returns the record of a redacted line as far as it is told."""
    values = _any(data)
    kind, fields = values["of"], values["fields"]
    told = {**_TAKEN_OUT.get(kind, {}), **fields, "kind": kind}
    if kind == "sequence":
        told["stop"] = {"token_ids": [], **fields["stop"]}
    return WithoutText(
        msgspec.convert({**told, "n": values["n"], "prev": values["prev"]}, KnownLine)
    )


def _head_of(raw: RawLine) -> str:
    """Returns the digest that a line after *raw* would name."""
    if raw.data.startswith(_REDACTED):
        try:
            original = _any(raw.data)["sha256"]
        except (msgspec.MsgspecError, ValueError, KeyError, RecursionError):
            return raw.head
        return original if isinstance(original, str) else raw.head
    return raw.head


class Emissions:
    """What became of the tokens whose own lines could not tell.

    The lines that say so come later, perhaps much later, so they are looked for first.

    Args:
        files: The files of a run, in order.

    Raises:
        NotALedgerError: When a file cannot be read.
        TablesError: When there are more such lines than can be remembered.
    """

    def __init__(self, files: Iterable[LedgerFile]) -> None:
        self._told: dict[tuple[str, int], deque[bool]] = {}
        self._count = 0
        for file in files:
            if _mentions(file.path, _EMISSION):
                self._take(file)

    def _take(self, file: LedgerFile) -> None:
        for record in FileLines(file):
            line = record.record if isinstance(record, WithoutText) else record
            if not isinstance(line, Emission):
                continue
            self._count += 1
            if self._count > MOST_EMISSIONS:
                raise TablesError(
                    f"{file.path} has more than {MOST_EMISSIONS:,} emission lines, which are all "
                    "held in memory; read its run in parts"
                )
            place = (line.sequence, line.position)
            self._told.setdefault(place, deque()).append(line.emitted)

    def take(self, sequence: str, position: int) -> bool | None:
        """Returns what became of the next such token in a place; ``None`` if nobody says."""
        told = self._told.get((sequence, position))
        return told.popleft() if told else None


def _mentions(path: Path, word: bytes) -> bool:
    """Returns whether *word* occurs in a file."""
    tail = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if word in tail + block:
                return True
            tail = block[-len(word) :]
    return False
