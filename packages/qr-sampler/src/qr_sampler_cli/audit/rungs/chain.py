# SPDX-License-Identifier: Apache-2.0
"""Rung 1: every line is whole and stands where it was written."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePath
from typing import Final

from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.reading.decoding import Decoded
from qr_sampler_cli.audit.schema.lines import SCHEMA_VERSION
from qr_sampler_cli.audit.schema.run_lines import Close, Gap, Genesis

__all__ = ["NO_LINE", "FileChain", "is_torn"]

NO_LINE: Final = "0" * 64
"""What the first line of a run names instead of a line before it."""

_MOST_KINDS: Final = 1_000
"""Kinds that are counted, unknown ones among them."""

_LONGEST_KIND: Final = 40
"""Most characters of a kind that are remembered."""

_NO_ORIGIN: Final = (
    "the chain shows what was changed after it was computed; without an anchor it proves no origin"
)

_NAME: Final = re.compile(
    r"\d{8}T\d{6}Z-dp\d+-(?P<pid>\d+)-(?P<run>[0-9a-f]{8})(?:-fork(?P<fork>\d+))*(?![0-9a-f])"
)


def is_torn(line: Decoded, following: Decoded) -> bool:
    """Returns whether *line* is the rest of a write cut short, which *following* tells of."""
    gap = following.record
    if not isinstance(gap, Gap) or not gap.torn_bytes or gap.torn_bytes != line.raw.size:
        return False
    # Such a line may be whole but for its newline; the gap then stands in its place.
    return not line.is_readable or (line.n, line.prev) == (following.n, following.prev)


class FileChain:
    """Follows the chain through one file.

    Args:
        rung: Takes the findings.
        name: Base name of the file.
    """

    def __init__(self, rung: Rung, name: str) -> None:
        self._rung = rung
        self._name = name
        self._expected = 0
        self._interrupted = False
        """Whether the line before could not be read, so that nothing can be compared with it."""
        self._before = 0
        self.head = NO_LINE
        """Head of what was read."""
        self.totals: Counter[str] = Counter()
        """Number of lines of each kind."""
        self.closed: Close | None = None
        """The line that ends the file."""
        self.lines = 0
        """Number of whole lines, the torn ones not among them."""
        self.redacted = 0
        """Number of lines whose text was left out."""
        self._torn = False

    def torn(self) -> None:
        """Skips a torn line; a gap follows."""
        self._torn = True

    def follow(self, line: Decoded, place: int) -> None:
        """Judges the next line."""
        rung = self._rung
        if self.closed is not None:
            rung.fail(place, f"a line of kind {line.kind or 'unknown'} follows the close")
            self.closed = None
        if line.fault:
            rung.fail(place, line.fault)
        if line.is_readable:
            self._judge_link(line, place)
            self._expected = line.n + 1
            self._interrupted = False
        else:
            self._interrupted = True
        self.head, self._before = line.head, place
        self.redacted += line.redacted is not None
        self._judge_record(line, place)
        self.lines += 1
        kind = line.counted_as[:_LONGEST_KIND]
        if kind in self.totals or len(self.totals) < _MOST_KINDS:
            self.totals[kind] += 1

    def _judge_link(self, line: Decoded, place: int) -> None:
        if not self.lines:
            if line.n:
                self._rung.fail(place, f"the first line has the number {line.n} instead of 0")
            return
        moved = line.n != self._expected + self._interrupted
        changed = line.prev != self.head and not self._interrupted
        if moved and changed:
            self._rung.fail(
                place,
                f"it does not follow the line before: its number is {line.n} instead of "
                f"{self._expected}, and prev is the digest of another line",
            )
        elif moved:
            self._rung.fail(place, f"its number is {line.n} instead of {self._expected}")
        elif changed:
            self._rung.fail(
                self._before,
                f"this line, or prev of the line after it (n {line.n}), was changed: prev is not "
                "its digest",
            )

    def _judge_record(self, line: Decoded, place: int) -> None:
        record = line.record
        if isinstance(record, Gap):
            if bool(record.torn_bytes) != self._torn:
                self._rung.fail(
                    place, f"torn_bytes is {record.torn_bytes}, but no such line is before the gap"
                )
        elif isinstance(record, Genesis):
            self._judge_genesis(record, place)
        elif isinstance(record, Close):
            self._judge_close(record, place)
        if not self.lines and line.kind != "genesis":
            self._rung.fail(place, "the first line is no genesis: what came before it is missing")
        self._torn = False

    def _judge_genesis(self, genesis: Genesis, place: int) -> None:
        if self.lines:
            self._rung.fail(place, f"a second genesis, of run {genesis.run_id[:40]!r}")
            return
        before = genesis.continues.head if genesis.continues else genesis.seal or NO_LINE
        if genesis.prev != before:
            self._rung.fail(
                place, f"prev of the first line is {genesis.prev} and ought to be {before}"
            )
        self._rung.note(_NO_ORIGIN)
        if genesis.schema_version != SCHEMA_VERSION:
            self._rung.fail(
                place,
                f"schema_version is {genesis.schema_version}; this audit knows {SCHEMA_VERSION}",
            )
        if (name := _NAME.match(PurePath(self._name).name)) is None:
            self._rung.note(f"the name {self._name} says nothing of the run")
            return
        pid = int(name["fork"] or name["pid"])
        if not genesis.run_id.startswith(name["run"]) or genesis.pid != pid:
            self._rung.fail(
                place,
                f"the file is named after run {name['run']} of process {pid} and holds run "
                f"{genesis.run_id[:8]!r} of process {genesis.pid}",
            )

    def _judge_close(self, close: Close, place: int) -> None:
        self.closed = close
        if close.head != close.prev:
            self._rung.fail(place, "head of the close is not its prev")
        here = {kind: count for kind, count in self.totals.items() if kind}
        told: Counter[str] = Counter()
        for kind, count in close.totals.items():
            if count:
                told[kind[:_LONGEST_KIND]] += count
        if here != told:
            kinds = sorted(
                kind for kind in {*here, *told} if here.get(kind, 0) != told.get(kind, 0)
            )
            counts = ", ".join(
                f"{told.get(kind, 0)} {kind} instead of {here.get(kind, 0)}" for kind in kinds[:8]
            )
            self._rung.fail(place, f"the close counts {counts}")
