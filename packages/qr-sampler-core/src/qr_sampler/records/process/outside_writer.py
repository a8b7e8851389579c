# SPDX-License-Identifier: Apache-2.0
"""Writes a ledger with a process of its own as long as there is one, and without it afterwards."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final
from weakref import WeakSet

from msgspec import structs

from qr_sampler.records.chain import NOT_JSON, Item, body_of
from qr_sampler.records.files import LedgerWriter
from qr_sampler.records.lines.token_run import Line, TokenRun, expanded
from qr_sampler.records.process.messages import (
    End,
    Lose,
    MadeLine,
    Prepare,
    Request,
    Standing,
    Start,
    Write,
    items_of,
)
from qr_sampler.records.process.pipe import ProcessEndedError, WriterProcess

__all__ = ["OutsideWriter"]

logger = logging.getLogger("qr_sampler.records.ledger")


class OutsideWriter:
    """Has a process write what a :class:`~qr_sampler.records.files.LedgerWriter` would write.

    Until it is ready, where none can be started, and when it has ended, the writer itself goes on
    with the file; a forked process has no other way. One thread at a time may use this.

    Args:
        writer: The writer, of which nothing is written yet.
        start: The same for the process.
        begun: Called when another file has begun, or what was written before may be lost.
    """

    def __init__(self, writer: LedgerWriter, start: Start, begun: Callable[[], None]) -> None:
        self._writer = writer
        self._start = start
        self._begun = begun
        self._starting: WriterProcess | None = None
        """The process until it is ready."""
        self._process: WriterProcess | None = None
        """The process that writes."""
        self._stands = Standing.of(writer, 0)
        """Where its ledger stands."""
        _all.add(self)

    @property
    def pid(self) -> int | None:
        """Number of the process that writes; ``None`` if there is none."""
        process = self._process
        return None if process is None else process.pid

    @property
    def path(self) -> Path:
        """The file that is being written."""
        if self._process is None:
            return self._writer.path
        return Path(os.fsdecode(self._stands.path))

    @property
    def refuses(self) -> bool:
        """As that of the writer."""
        return self._writer.refuses if self._process is None else self._stands.refuses

    @property
    def lost(self) -> int:
        """As that of the writer."""
        return self._writer.lost if self._process is None else self._stands.lost

    @property
    def given_up(self) -> int:
        """As that of the writer."""
        return self._writer.given_up if self._process is None else self._stands.given_up

    def begin(self) -> None:
        """Creates the file with its header, and starts the process."""
        self._writer.begin()
        try:
            self._starting = WriterProcess()
        except ProcessEndedError as error:
            _say_that_none_starts(error)

    def prepare(self) -> None:
        """Turns to another file if that is necessary."""
        self._hand_over()
        if not self._has(Prepare()):
            self._writer.prepare()

    def write(self, lines: Sequence[Line] = ()) -> None:
        """Appends *lines* in order; without any tries again what was refused. Never raises."""
        if self._process is None:
            self._writer.write(expanded(lines))
            return
        items, invalid = _made(lines)
        self._has(Write(items))
        if invalid:
            self.lose("invalid", invalid)

    def lose(self, reason: str, missing: Mapping[str, int], since_wall_ns: int = 0) -> None:
        """States that lines are missing here."""
        if not self._has(Lose(reason, dict(missing), since_wall_ns)):
            self._writer.lose(reason, missing, since_wall_ns)

    def end(self) -> None:
        """Ends the chain and the process; writing more goes on without it, in another file."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.end(at_once=True)
        process = self._process
        if process is not None and self._has(End()):
            process.end()
            closed = self._stands.closed
            self._stands.continued_by(self._writer, begun=not closed)
            self._process = None
            if closed:
                return
            self._write_rest([])
        self._writer.end()

    def leave(self) -> None:
        """Leaves the process to the one that this one was forked from."""
        for process in filter(None, (self._starting, self._process)):
            process.leave()
        self._starting = self._process = None

    def _hand_over(self) -> None:
        """Has the process go on with the file, as soon as it can and nothing waits here."""
        process, writer = self._starting, self._writer
        if process is None or writer.refuses or writer.waiting:
            return
        try:
            if not process.is_ready():
                return
            writer.release()
            stands = Standing.of(writer, 0)
            self._stands = process.call(structs.replace(self._start, standing=stands))
            self._process = process
        except ProcessEndedError as error:
            process.end(at_once=True)
            _say_that_none_starts(error)
        self._starting = None

    def _has(self, request: Request) -> bool:
        """Returns whether there is a process that has done something.

        What one that has ended was to write is written all the same.
        """
        process = self._process
        if process is None:
            return False
        try:
            stands = process.call(request)
        except ProcessEndedError as error:
            logger.error(
                "the process that writes the ledger %s has ended (%s; %s); a thread of the engine "
                "goes on with it, for which the engine waits now and then",
                os.fsdecode(self._stands.path),
                error,
                process.end(),
            )
            self._stands.continued_by(self._writer)
            # From here on the numbers are those of the writer, which has them by now.
            self._process = None
            self._write_rest(items_of(request.items) if isinstance(request, Write) else [])
            return False
        more = stands.files > self._stands.files
        self._stands = stands
        if more:
            self._begun()
        return True

    def _write_rest(self, items: list[Item]) -> None:
        """Writes those of *items* that the process has not written before it has ended.

        What else waited there, or has been written in part, is missing.
        """
        writer, before = self._writer, self._stands
        writer.prepare()
        totals, known = writer.file.totals, Counter(before.totals)
        in_place = os.fsencode(writer.path) == before.path
        written = totals - known if in_place else Counter()
        for gap in before.gaps[written.pop("gap", 0) :]:
            if gap.reason != "torn":
                writer.state(gap.reason, gap.missing, gap.since_wall_ns)
        waiting = Counter(before.waiting)
        missing = waiting - written + (known - totals if in_place else Counter())
        if missing:
            writer.lose("refused", missing)
            self._begun()
        written -= waiting
        rest: list[Item] = []
        for item in items:
            if written[item[0]] > 0:
                written[item[0]] -= 1
            else:
                rest.append(item)
        writer.write(rest)


def _say_that_none_starts(error: ProcessEndedError) -> None:
    logger.warning("a thread of the engine writes the ledger, as no process starts: %s", error)


def _made(lines: Iterable[Line]) -> tuple[list[MadeLine | TokenRun], Counter[str]]:
    """Returns what the process is told of *lines*, and the number by kind of those without JSON."""
    made: list[MadeLine | TokenRun] = []
    invalid: Counter[str] = Counter()
    for kind, fields in lines:
        if isinstance(fields, TokenRun):
            made.append(fields)
            continue
        try:
            made.append(MadeLine(kind, body_of(kind, fields)))
        except NOT_JSON as error:
            logger.error("a record of kind %r cannot be written and is lost: %s", kind, error)
            invalid[kind] += 1
    return made, invalid


_all: Final[WeakSet[OutsideWriter]] = WeakSet()


def _leave_all() -> None:
    for writer in list(_all):
        writer.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
