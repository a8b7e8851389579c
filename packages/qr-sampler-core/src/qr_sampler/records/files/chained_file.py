# SPDX-License-Identifier: Apache-2.0
"""One file of a ledger: lines in a chain, which the disk may take in pieces."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from qr_sampler.records.chain import NOT_JSON, ZERO_HEAD, Item, blinds, line_of
from qr_sampler.records.files.append_file import AppendFile, Fate
from qr_sampler.records.files.gaps import Gap
from qr_sampler.records.files.standing import Standing

__all__ = ["Appended", "ChainedFile"]

logger = logging.getLogger("qr_sampler.records.ledger")

_DONE_TO_IT: Final = {"cut": "cut short"}


class Appended(NamedTuple):
    """What has become of items that were to be appended."""

    taken: int
    """How many of them, from the first, need no further care: the disk has at least begun with
    their lines, or they can have none."""
    invalid: Counter[str]
    """Number of those that can have none, by kind."""
    error: OSError | None
    """Why the disk has not taken all."""


class ChainedFile:
    """A file whose lines name the digest of the line before them.

    The disk may refuse at any byte. A line that has been begun counts as written, and what is left
    of it is written before anything else.

    Args:
        path: Where it is; made when there is something to write.
        fresh: Whether it must not exist before.
        prev: What its first line names.
        blinded: Kinds whose lines get a random ``blind``, so that nobody can guess their bytes.
    """

    def __init__(
        self,
        path: Path,
        *,
        fresh: bool,
        prev: str = ZERO_HEAD,
        blinded: frozenset[str] = frozenset(),
    ) -> None:
        self.path = path
        self._blinded = blinded
        self.lines = 0
        """Number of its lines, the unfinished one included."""
        self.head = prev
        """Digest of the last of them."""
        self.totals: Counter[str] = Counter()
        """Their number by kind."""
        self.last_kind = ""
        """Kind of the last of them."""
        self.rest = b""
        """What the disk has not taken yet of the last of them."""
        self._whole = (0, prev)
        """Number of whole lines and digest of the last, while there is an unfinished one."""
        self._file = AppendFile(path, fresh=fresh)

    @property
    def size(self) -> int:
        """Number of its bytes at least."""
        return self._file.size

    @property
    def whole(self) -> tuple[int, str]:
        """Number of its whole lines, and digest of the last of them."""
        return self._whole if self.rest else (self.lines, self.head)

    @property
    def closed(self) -> bool:
        """Whether nothing may follow its last line, which may be unfinished."""
        return self.last_kind == "close"

    def resume(self, standing: Standing) -> None:
        """Takes up the chain of a file that is there already.

        A line in it that was left unfinished is ended before the next one.
        """
        self.lines, self.head = self._whole = (standing.lines, standing.head)
        self.totals = standing.totals
        self.last_kind = standing.last_kind
        self.rest = b"" if standing.ended else b"\n"

    def append(self, items: Sequence[Item] = ()) -> Appended:
        """Appends the lines of *items*, behind what is left of an earlier one."""
        batch = _batch_of(items, self.lines, self.head, self._blinded)
        data = b"\n".join((*batch.lines, b""))
        if self.rest:
            data = self.rest + data
        written, error = self._file.append(data)
        if written < len(self.rest):
            self.rest = self.rest[written:]
            return Appended(0, Counter(), error)
        whole = data.count(b"\n", len(self.rest), written)
        unfinished = not data.endswith(b"\n", 0, written) if written else False
        # What is left of the unfinished line, with its newline.
        self.rest = data[written : data.index(b"\n", written) + 1] if unfinished else b""
        begun = whole + unfinished
        self._advance(batch, begun, whole)
        taken = len(items) if error is None else batch.places[begun - 1] + 1 if begun else 0
        invalid = Counter(items[place][0] for place in batch.invalid if place < taken)
        return Appended(taken, invalid, error)

    def close(self, lost: int, continued_in: str | None) -> OSError | None:
        """Appends the line that ends the file; returns why not all of it.

        Args:
            lost: Number of lines of the run that are in no file.
            continued_in: Name of the file that goes on from this one.
        """
        fields = {
            "totals": dict(self.totals),
            "lost": lost,
            "head": self.head,
            "wall_time_ns": time.time_ns(),
            "continued_in": continued_in,
        }
        return self.append([("close", fields)]).error

    def report(self, fate: Fate) -> None:
        """Reports what others have done to the file."""
        logger.error(
            "the ledger %s was %s while it was being written, and %d records with it; it goes on "
            "in a new file",
            self.path,
            _DONE_TO_IT.get(fate, fate),
            self.totals.total(),
        )

    def fate(self) -> Fate | None:
        """Returns what others have done to the file, ``None`` if nothing."""
        return self._file.fate()

    def sync(self) -> None:
        """Waits until the disk itself has what was written.

        Raises:
            OSError: When the disk cannot say so; some of it may be lost.
        """
        self._file.sync()

    def release(self) -> None:
        """Closes the handle; writing more opens it again."""
        error = self._file.release()
        if error is not None:
            logger.error("closing the ledger %s failed: %s", self.path, error)

    def _advance(self, batch: _Batch, begun: int, whole: int) -> None:
        """Counts the first *begun* lines of *batch*, of which *whole* are whole."""
        self._whole = (self.lines + whole, batch.heads[whole - 1] if whole else self.head)
        if begun:
            self.lines += begun
            self.head = batch.heads[begun - 1]
            self.totals.update(batch.kinds[:begun])
            self.last_kind = batch.kinds[begun - 1]


@dataclass(slots=True)
class _Batch:
    """Lines that are to be written at once."""

    lines: list[bytes]
    """The lines, without their newlines."""
    heads: list[str]
    """Their digests."""
    kinds: list[str]
    """Their kinds."""
    places: list[int]
    """Which items they are made of."""
    invalid: list[int]
    """Which items can have no line."""


def _batch_of(items: Sequence[Item], count: int, head: str, blinded: frozenset[str]) -> _Batch:
    """Returns the lines of *items*.

    Args:
        items: The items.
        count: Number of lines in the file before them.
        head: Digest of the last of them.
        blinded: Kinds whose lines get a ``blind``.
    """
    random = iter(blinds(len(items)) if blinded else ())
    batch = _Batch([], [], [], [], [])
    # Every token passes here, so that what is read again and again is read once.
    add_line, add_head = batch.lines.append, batch.heads.append
    for place, (kind, fields) in enumerate(items):
        if kind == "gap" and isinstance(fields, Gap):
            fields.wall_time_ns = time.time_ns()
        try:
            line = line_of(kind, count, head, fields, next(random) if kind in blinded else "")
        except NOT_JSON as error:
            logger.error("a record of kind %r cannot be written and is lost: %s", kind, error)
            batch.invalid.append(place)
            continue
        count += 1
        head = sha256(line).hexdigest()
        add_line(line)
        add_head(head)
    left_out = set(batch.invalid)
    batch.places = [place for place in range(len(items)) if place not in left_out]
    batch.kinds = [items[place][0] for place in batch.places]
    return batch
