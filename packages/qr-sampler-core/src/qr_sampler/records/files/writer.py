# SPDX-License-Identifier: Apache-2.0
"""The files of one ledger, whose chain goes on whatever happens to the disk."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from qr_sampler.records.chain import ZERO_HEAD, Item
from qr_sampler.records.files.append_file import Fate
from qr_sampler.records.files.chained_file import ChainedFile
from qr_sampler.records.files.continues import Continues, Header
from qr_sampler.records.files.gaps import Gap, beyond, state_missing
from qr_sampler.records.files.names import FileNames
from qr_sampler.records.files.refusals import Refusals
from qr_sampler.records.files.standing import Standing, standing_of

__all__ = ["Continues", "Header", "LedgerWriter"]


class LedgerWriter:
    """Appends lines to a file, and goes on in another one when it is full or out of reach.

    If the file was removed, moved away or cut short, the chain goes on in a new one, whose name has
    a number behind it; so it does when a file is full, or more is written after the end. A file
    that exists already is continued. A :class:`~.gaps.Gap` says what is missing. A forked
    process gets a file of its own. One thread at a time may use this.

    Args:
        path: The first file; directories are made when missing.
        header: Makes what each file begins with.
        seal: What the first line of a file names that continues no other.
        blinded: Kinds whose lines get a random ``blind``, so that nobody can guess their bytes.
        max_bytes: Size from which on the chain goes on in another file; 0 for no limit.
        held: Number of lines that wait for a disk that refuses; what comes after them is lost.
        sync_s: Time in seconds after which a write makes sure that the disk itself has everything;
            it never does if not given.
    """

    def __init__(
        self,
        path: Path,
        header: Header = lambda continues: (),
        *,
        seal: str = ZERO_HEAD,
        blinded: frozenset[str] = frozenset(),
        max_bytes: int = 0,
        held: int = 0,
        sync_s: float = math.inf,
    ) -> None:
        self._names = FileNames(path)
        self._make_header = header
        self._seal = seal
        self._blinded = blinded
        self._max_bytes = max_bytes
        self._held = held
        self._sync_s = sync_s
        self._synced_s = time.monotonic()
        self._pid = os.getpid()
        self._begun = False
        """Whether a file is to be there, though there may be nothing to write but its header."""
        self._looked = False
        """Whether it is known what was at the path of the first file."""
        self._unreadable: OSError | None = None
        """Why that could not be found out."""
        self._refusals = Refusals(wait=held > 0)
        self._lost = 0
        self._continues: Continues | None = None
        """What the file goes on from."""
        self._due: list[Item] = []
        """What is to be written and is in no file yet."""
        self._before: ChainedFile | None = None
        """The file before it, as long as its last line is unfinished."""
        self._start(path, None, fresh=False)

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._file.path

    @property
    def file(self) -> ChainedFile:
        """The same with where its chain stands."""
        return self._file

    @property
    def continues(self) -> Continues | None:
        """What it goes on from."""
        return self._continues

    @property
    def waiting(self) -> Sequence[Item]:
        """What is to be written and is in no file yet."""
        return self._due

    @property
    def refuses(self) -> bool:
        """Whether the disk has refused what was written last, or cannot say that it has it."""
        return bool(self._refusals)

    @property
    def lost(self) -> int:
        """Number of lines that are in no file; those that wait for the disk are among them."""
        waiting = (*self._header, *self._due)
        return self._lost + sum(not isinstance(fields, Gap) for _, fields in waiting)

    @property
    def given_up(self) -> int:
        """Number of lines that are in no file and will never be."""
        return self._lost

    def begin(self) -> None:
        """Creates the file with its header."""
        self._begun = True
        self.prepare()
        self.write()

    def prepare(self) -> None:
        """Turns to another file if that is necessary, which :meth:`write` never does on its own.

        So what is to be written can be made for the file that it will be in.
        """
        if self._is_in_reach() and self._is_full():
            self._close(self._names.following.name)
        if self._file.closed:
            self._go_on()

    def write(self, items: Sequence[Item] = ()) -> None:
        """Appends *items* in order. Never raises for what the disk does, nor for their values.

        Without items it tries again what was refused.
        """
        self._due += items
        if not self._due and not self._begun:
            return
        self._begun = True
        error = self._drain()
        self._refusals.refused = error is not None
        if error is not None:
            self._refusals.refuse(self.path, error)
            self._due, missing = beyond(self._held, self._due)
            if missing:
                self.lose("refused", missing)
        if self._refusals.unsynced or time.monotonic() - self._synced_s >= self._sync_s:
            self.sync()
        self._refusals.settle()

    def lose(self, reason: str, missing: Mapping[str, int], since_wall_ns: int = 0) -> None:
        """States that lines are missing between those written before and after this call.

        Args:
            reason: What has become of them, as in :class:`Gap`.
            missing: Their number by kind.
            since_wall_ns: When the first of them was missed; now if not given.
        """
        self._lost += sum(missing.values())
        self.state(reason, missing, since_wall_ns)

    def state(self, reason: str, missing: Mapping[str, int], since_wall_ns: int = 0) -> None:
        """States the same of lines that are counted already."""
        state_missing(self._due, reason, missing, since_wall_ns)

    def sync(self) -> None:
        """Waits until the disk itself has what was written. A disk that cannot say so refuses."""
        self._synced_s = time.monotonic()
        self._refusals.unsynced = False
        self._sync(self._file)

    def release(self) -> None:
        """Closes the file; writing more opens it again."""
        self._file.release()

    def take_up(
        self, name: str, before: Standing, continues: Continues | None, lost: int, *, begun: bool
    ) -> None:
        """Goes on with a file that another process has written, which does so no more.

        Args:
            name: The file, beside this one.
            before: Where it stood. If it lacks any of that, others have done something to it.
            continues: What it goes on from.
            lost: Number of lines that the other process has given up.
            begun: Whether it may be without its end.
        """
        self.release()
        path = self.path.with_name(name)
        self._names.note(path)
        self._file = ChainedFile(path, fresh=False, prev=before.head, blinded=self._blinded)
        self._file.resume(before)
        self._header.clear()
        self._due.clear()
        self._header_lines = 0
        self._before = None
        self._continues = continues
        self._begun, self._looked = begun, self._file.closed
        self._lost = lost

    def end(self) -> None:
        """Ends the chain with a ``close`` line; writing more goes on in another file."""
        if self._pid != os.getpid() or not self._begun:
            return
        self._is_in_reach()
        self.write()
        if self._file.lines and not self._file.closed and not self.refuses:
            self._close(None)
        self._begun = False
        self.release()

    def _is_full(self) -> bool:
        # With a header alone it is not: the next file would be full at once, too.
        file = self._file
        full = 0 < self._max_bytes <= file.size and file.lines > self._header_lines
        return full and not file.closed and not self._due

    def _drain(self) -> OSError | None:
        """Writes what is due as far as the disk takes it; returns why not all of it."""
        if self._unreadable is not None:
            return self._unreadable
        if self._file.closed:
            self._go_on()
        error = self._finish()
        while error is None and (self._header or self._due or self._file.rest):
            # One line is enough to ask a disk that has refused.
            most = 1 if self._refusals.refused else None
            taken, invalid, error = self._file.append([*self._header, *self._due][:most])
            of_header = min(taken, len(self._header))
            del self._header[:of_header], self._due[: taken - of_header]
            if invalid:
                self.lose("invalid", invalid)
            self._refusals.refused = error is not None
        return error

    def _finish(self) -> OSError | None:
        """Writes what is left of the last line of the file before; returns why that failed."""
        if self._before is None:
            return None
        error = self._before.append().error
        if error is None:
            self._sync(self._before)
            self._before.release()
            self._before = None
        return error

    def _sync(self, file: ChainedFile) -> None:
        try:
            file.sync()
        except OSError as error:
            self._refusals.unsynced = True
            self._refusals.report(self.path, error)

    def _is_in_reach(self) -> bool:
        """Turns to another file if others have done something to this one."""
        self._unreadable = None
        try:
            self._look()
        except OSError as error:
            # Nothing may be written to a file of which nobody knows how far it goes.
            self._unreadable = None if self._looked else error
            self._refusals.refuse(self.path, error)
            return False
        return True

    def _look(self) -> None:
        """Notices a fork, what the first file holds already, and what others have done to it."""
        if self._pid != os.getpid():
            self._fork()
        if not self._looked:
            self._continue_existing()
            self._looked = True
        if self._before is not None and (fate := self._before.fate()) is not None:
            self._miss(self._before, fate)
            self._before = None
        # A file that is complete may go wherever its owner likes.
        fate = None if self._file.closed else self._file.fate()
        if fate == "taken":
            self._start_next(self._continues)
        elif fate is not None:
            file = self._file
            self._go_on()
            self._miss(file, fate)

    def _start(self, path: Path, continues: Continues | None, *, fresh: bool) -> None:
        """Turns to a file, of which nothing is written yet."""
        prev = self._seal if continues is None else continues.head
        self._file = ChainedFile(path, fresh=fresh, prev=prev, blinded=self._blinded)
        self._continues = continues
        self._header = list(self._make_header(continues))
        """What it begins with, as far as that is not written yet."""
        self._header_lines = len(self._header)

    def _start_next(self, continues: Continues | None) -> None:
        """Turns to a new file, likewise."""
        self._start(self._names.take(), continues, fresh=True)

    def _go_on(self) -> None:
        """Turns to the file after this one, whose last line is finished first if it ends it."""
        file = self._file
        lines, head = (file.lines, file.head) if file.closed else file.whole
        self._before = file if file.closed and file.rest else self._before
        self.release()
        self._start_next(Continues(file.path.name, lines, head) if lines else self._continues)

    def _close(self, continued_in: str | None) -> None:
        """Writes the line that ends the file, as far as the disk takes it."""
        error = self._file.close(self._lost, continued_in)
        if error is not None:
            self._refusals.refuse(self.path, error)
        self.sync()

    def _miss(self, file: ChainedFile, fate: Fate) -> None:
        """Counts what was lost with *file*, whose chain goes on in a new one."""
        gone = file.totals
        if fate != "moved":
            self._lost += gone.total()
        file.report(fate)
        if gone:
            self._due.insert(0, ("gap", Gap(fate, gone, time.time_ns())))

    def _fork(self) -> None:
        """Leaves the file, and what waits for it, to the process that this one was forked from."""
        self._file.release()
        self._pid, self._lost, self._due, self._before = os.getpid(), 0, [], None
        self._names = self._names.of_fork(self._pid)
        self._looked = True
        self._start_next(None)

    def _continue_existing(self) -> None:
        """Takes up the chain of a file that is there already."""
        there = self.path.is_file() and self.path.stat().st_size > 0
        standing = standing_of(self.path) if there else None
        if self._file.lines and (standing is None or standing.lines < self._file.lines):
            file = self._file
            self._go_on()
            self._miss(file, "cut" if there else "removed")
        elif standing is None and (there or self._continues is not None):
            # It is somebody else's, or what has been begun of it says nothing.
            self._start_next(self._continues)
        elif standing is not None:
            self._resume(standing)

    def _resume(self, standing: Standing) -> None:
        self._header, self._header_lines = [], 0
        self._file.resume(standing)
        if standing.torn_bytes:
            gap = Gap("torn", Counter(), time.time_ns(), standing.torn_bytes)
            self._due.insert(0, ("gap", gap))
