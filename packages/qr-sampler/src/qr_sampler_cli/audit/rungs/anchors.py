# SPDX-License-Identifier: Apache-2.0
"""Rung 5: between which times lines were written, by clocks of others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from qr_sampler_cli.audit.anchors.drand import CHAIN, InvalidRoundError, Round, verify_round
from qr_sampler_cli.audit.anchors.files import AnchorFile, anchor_files, folder_of, read_small
from qr_sampler_cli.audit.anchors.timestamps import (
    TimeStamp,
    TimeStampAuthorities,
)
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.reading.decoding import Decoded
from qr_sampler_cli.audit.schema.run_lines import Anchor, Clock, Genesis
from qr_sampler_cli.failures import MissingPackageError

__all__ = ["Anchors", "OutsideWitnesses"]

_SHOWN: Final = 8
_CLOCK_SLACK_NS: Final = 60 * 10**9
"""How far recorded wall clocks may be from those of others without a word."""
_NS_PER_S: Final = 10**9


@dataclass(frozen=True, slots=True)
class OutsideWitnesses:
    """What the audit is given to verify anchors with."""

    authorities: TimeStampAuthorities | None = None
    """Who is trusted to stamp times."""
    missing: str = "--tsa-certificates names no root certificates"
    """Why there are none."""
    folders: tuple[Path, ...] = ()
    """Where copies of anchors are beside those of the ledger, in folders of the same names."""
    seal: tuple[str, Round | None] | None = None
    """Digest of the sealed plan that is known, and the round of the beacon in it."""


@dataclass(slots=True)
class _Bracket:
    """Lines that one time stamp brackets."""

    file: str
    first: int
    last_file: str
    last: int
    not_before_ns: int
    stamp: TimeStamp


@dataclass(slots=True)
class _Open:
    """Lines since the last time stamp."""

    file: str = ""
    first: int = 0
    count: int = 0
    not_before_ns: int = 0
    """Time of the latest round of a beacon before the first of them."""
    clocks: list[tuple[int, int]] = field(default_factory=list)
    """Latest wall clock among them, and its place."""


class Anchors:
    """Compares the lines of a run with what others have stamped and published.

    Args:
        rung: Takes the findings.
        outside: What anchors are verified with.
    """

    def __init__(self, rung: Rung, outside: OutsideWitnesses) -> None:
        self._rung = rung
        self._outside = outside
        self._wanted: dict[int, list[AnchorFile]] = {}
        self._brackets: list[_Bracket] = []
        self._open = _Open()
        self._beacon_ns = 0
        self._anchored = False
        self._file = ""
        self._last = (0, -1)
        self._head = ""
        self._untied = 0

    def begin_file(self, path: Path) -> None:
        """Goes on with another file of the run, whose anchors are looked for."""
        self.end_file()
        self._file = path.name
        self._last = (self._rung.places.last, -1)
        wanted: dict[int, list[AnchorFile]] = defaultdict(list)
        own = folder_of(path)
        for folder in (own, *(folder / own.name for folder in self._outside.folders)):
            for each in anchor_files(folder):
                if isinstance(each, AnchorFile):
                    wanted[each.n].append(each)
                else:
                    self._rung.cannot_say(f"what an anchor says: {each}")
        self._wanted = dict(wanted)
        self._anchored |= bool(wanted)

    def line(self, n: int, line: Decoded, place: int) -> None:
        """Takes in line *n* of the file."""
        # Only bytes that are here, and name the head before, tie what came before to a later stamp.
        if line.redacted is not None or line.prev != self._head:
            self._untie()
        self._head = head = line.head
        lines = self._open
        if not lines.count:
            self._open = lines = _Open(self._file, n, 0, self._beacon_ns)
        lines.count += 1
        self._last = (place, n)
        for anchor in self._wanted.pop(n, ()):
            self._judge(anchor, head, place)

    def _untie(self) -> None:
        """Begins anew: nothing shows that the next line was written after those before it."""
        self._untied += self._open.count
        self._open, self._beacon_ns = _Open(), 0

    def end_file(self) -> None:
        """Judges anchors of lines that the file does not have."""
        place, last = self._last
        for n, anchors in sorted(self._wanted.items()):
            for anchor in anchors:
                stamp = self._verified(anchor, place)
                when = "" if stamp is None else f" before {_shown(stamp.not_after_ns)}"
                self._rung.fail(
                    place,
                    f"the file ends with line n {last}, and {anchor.path.name} has stamped line "
                    f"n {n} of it{when}: its end was cut off",
                )
        self._wanted = {}

    def genesis(self, line: Genesis, place: int) -> None:
        """Takes in the seal, which may contain a round of the beacon."""
        given = self._outside.seal
        if line.seal is None:
            if given is not None:
                self._rung.cannot_say("whether the plan of --seal was there: no seal is in genesis")
            return
        if given is None or given[0] != line.seal:
            self._rung.cannot_say("what the ledger was sealed with: name its plan with --seal")
        elif given[1] is not None:
            self._take_round(given[1], place)

    def anchor(self, line: Anchor, place: int) -> None:
        """Takes in a line with a round of the beacon."""
        told = {"round": line.round, "signature": line.signature}
        if line.chain != CHAIN:
            self._rung.cannot_say("what anchor lines of other beacons than drand quicknet say")
            return
        try:
            found = Round.of(told)
        except InvalidRoundError as error:
            self._rung.fail(place, str(error))
            return
        self._take_round(found, place)

    def clock(self, line: Clock, place: int) -> None:
        """Compares the recorded wall clock with those of others."""
        if line.wall_time_ns < self._beacon_ns - _CLOCK_SLACK_NS:
            self._rung.cannot_say(
                "whether recorded times are right: a clock is behind the beacon before it", place
            )
        self._open.clocks = [max([(line.wall_time_ns, place), *self._open.clocks])]

    def finish(self) -> None:
        """Says which lines are witnessed, and which are not."""
        self.end_file()
        for bracket in self._shown_brackets():
            self._rung.note(bracket)
        if not self._anchored:
            self._rung.cannot_say(
                "that the ledger was written when it says: without anchors (time stamps, a "
                "beacon), whoever holds it could have computed its chain anew"
            )
        elif self._open.count:
            self._rung.cannot_say(
                f"before when the last {self._open.count:,} lines were written: no valid time "
                "stamp is over them"
            )
        if self._anchored and self._untied:
            self._rung.cannot_say(
                "before when lines were written that no stamped line names: behind them a line is "
                "redacted, changed or not here",
                count=self._untied,
            )
        if self._brackets and not self._brackets[0].not_before_ns:
            self._rung.cannot_say(
                "after when the first lines were written: no round of a beacon is before them"
            )

    def _judge(self, anchor: AnchorFile, head: str, place: int) -> None:
        stamp = self._verified(anchor, place)
        if anchor.head != head:
            when = "" if stamp is None else f" before {_shown(stamp.not_after_ns)}"
            self._rung.fail(
                place,
                f"its SHA-256 is {head}; {anchor.path.name} has stamped {anchor.head} as line n "
                f"{anchor.n}{when}: it or a line before it was changed since",
            )
        elif stamp is not None:
            self._close(anchor.n, stamp, place)

    def _verified(self, anchor: AnchorFile, place: int) -> TimeStamp | None:
        """Returns what the authority has stamped, ``None`` if it cannot be said."""
        if self._outside.authorities is None:
            self._rung.cannot_say(f"whether time stamps are valid: {self._outside.missing}")
            return None
        try:
            return self._outside.authorities.verify(read_small(anchor.token), anchor.head)
        except OSError as error:
            self._rung.cannot_say(f"what {anchor.token.name} has stamped: {error.strerror}", place)
        except ValueError as error:
            self._rung.fail(place, f"the time stamp {anchor.token} is not valid: {error}")
        return None

    def _close(self, n: int, stamp: TimeStamp, place: int) -> None:
        """Brackets the lines since the stamp before."""
        if self._beacon_ns > stamp.not_after_ns:
            self._rung.fail(
                place,
                f"it was stamped before {_shown(stamp.not_after_ns)}, and a line before it holds a "
                f"round of the beacon of {_shown(self._beacon_ns)}",
            )
        lines = self._open
        for wall_ns, at in lines.clocks:
            if wall_ns > stamp.not_after_ns + _CLOCK_SLACK_NS:
                self._rung.cannot_say(
                    "whether recorded times are right: a clock is ahead of the time stamp over it",
                    at,
                )
        if lines.count:
            self._brackets.append(
                _Bracket(lines.file, lines.first, self._file, n, lines.not_before_ns, stamp)
            )
        self._open = _Open(self._file, n + 1, 0, self._beacon_ns)

    def _take_round(self, found: Round, place: int) -> None:
        try:
            verify_round(found)
        except MissingPackageError as error:
            self._rung.cannot_say(f"whether rounds of the beacon are valid: {error}", place)
        except InvalidRoundError as error:
            self._rung.fail(place, f"the beacon has not published it: {error}")
        else:
            self._anchored = True
            self._beacon_ns = max(self._beacon_ns, found.time_ns)
            if self._open.count == 1:
                # The line that names it was written after it, too.
                self._open.not_before_ns = self._beacon_ns

    def _shown_brackets(self) -> Sequence[str]:
        shown = [_described(bracket) for bracket in self._brackets]
        if len(shown) <= _SHOWN:
            return shown
        half = _SHOWN // 2
        left_out = f"{len(shown) - _SHOWN:,} more time stamps, each over the lines since the last"
        return [*shown[:half], left_out, *shown[-half:]]


def _described(bracket: _Bracket) -> str:
    since = _shown(bracket.not_before_ns) if bracket.not_before_ns else "a time that nothing tells"
    where = f"lines n {bracket.first} to {bracket.last} of {bracket.file}"
    if bracket.last_file != bracket.file:
        where = (
            f"lines from n {bracket.first} of {bracket.file} to n {bracket.last} of "
            f"{bracket.last_file}"
        )
    return (
        f"{where} were written after {since} and before {_shown(bracket.stamp.not_after_ns)}, says "
        f"{bracket.stamp.authority}"
    )


def _shown(time_ns: int) -> str:
    when = datetime.fromtimestamp(-(-time_ns // _NS_PER_S), timezone.utc)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
