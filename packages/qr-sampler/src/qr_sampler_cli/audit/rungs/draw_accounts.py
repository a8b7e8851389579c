# SPDX-License-Identifier: Apache-2.0
"""Whether every byte of every draw is in exactly one line."""

from __future__ import annotations

from typing import Final

from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.rungs.copies import DrawCopies
from qr_sampler_cli.audit.rungs.losses import Losses
from qr_sampler_cli.audit.rungs.open_items import OpenDraw
from qr_sampler_cli.audit.schema.token_lines import Draw

__all__ = ["DrawAccounts"]


_MOST_OPEN: Final = 20_000
"""Most draws with bytes left that are remembered; an engine has one or two of them."""

_BEFORE_THE_END: Final = "what became of all bytes of draws before the end"


class DrawAccounts:
    """Remembers the draws that have bytes left.

    Args:
        rung: Takes the findings.
        losses: What gaps have told of.
    """

    def __init__(self, rung: Rung, losses: Losses) -> None:
        self._rung = rung
        self._losses = losses
        self._copies = DrawCopies(rung)
        self.open: dict[int, OpenDraw] = {}
        self.count = 0
        """Number of draws."""
        self._first = 0
        """Draws with smaller numbers were first told of in a file that is not there."""
        self._floor = 0
        """All other draws with smaller numbers have been there."""
        self._ahead: set[int] = set()
        """Larger numbers that have been there as well."""

    def begin_in_between(self) -> None:
        """Says that earlier draws are in a file that is not there."""
        for draw in self.open.values():
            self._rung.cannot_say(_BEFORE_THE_END, draw.place)
        self.open.clear()
        self._ahead.clear()
        self._floor = -1

    def begin(self, line: Draw, place: int, part: int) -> OpenDraw | None:
        """Takes in a draw and returns it, or ``None`` if it is there already."""
        number = line.draw
        if self._floor < 0:
            self._floor = self._first = number
        known = self.open.get(number)
        if known is not None and known.part != part:
            # After a gap, and in another file, lines say again what they refer to.
            known.part = part
            return None
        if number >= self._floor and number not in self._ahead:
            self._mark(number)
        elif number >= self._first:
            self._rung.fail(place, f"draw {number} is there already")
            return None
        self.count += 1
        self._copies.add(line, place)
        draw = OpenDraw(line, place, part)
        if line.bytes:
            self.open[number] = draw
        if len(self.open) > _MOST_OPEN:
            forgotten = self.open.pop(next(iter(self.open)))
            self._rung.cannot_say(
                "what became of bytes of more draws than are remembered", forgotten.place
            )
        return draw

    def _mark(self, number: int) -> None:
        if number != self._floor:
            self._ahead.add(number)
            return
        self._floor += 1
        while self._ahead and self._floor in self._ahead:
            self._ahead.remove(self._floor)
            self._floor += 1

    def spend(self, number: int, offset: int | None, size: int, place: int) -> OpenDraw | None:
        """Takes in a part of a draw; returns the draw, or ``None`` if it is not there."""
        draw = self.open.get(number)
        if draw is None:
            self._missed(number, place)
            return None
        if not size:
            self._rung.fail(place, f"it has no bytes of draw {number}")
            return draw
        draw.left -= size
        draw.spans.append((-1 if offset is None else offset, size, place))
        if draw.left <= 0:
            del self.open[number]
            self._judge(draw, place)
        return draw

    def _missed(self, number: int, place: int) -> None:
        if self._first <= number < self._floor or number in self._ahead:
            self._rung.fail(place, f"draw {number} has no bytes left for it")
        elif self._floor < 0 or number < self._first:
            self._rung.cannot_say("draws whose line is in an earlier file", place)
        elif not self._losses.excuse("draw"):
            self._rung.fail(place, f"no line before it describes draw {number}")

    def _judge(self, draw: OpenDraw, place: int) -> None:
        if draw.left < 0:
            self._rung.fail(
                place,
                f"the lines of draw {draw.number} have {draw.bytes - draw.left} bytes and it "
                f"has {draw.bytes}",
            )
            return
        if draw.spans[0][0] < 0:
            # Version 1 has no offsets.
            return
        end = 0
        for offset, size, where in sorted(draw.spans):
            if offset != end:
                self._rung.fail(
                    where,
                    f"its bytes of draw {draw.number} begin at {offset}, and those of the lines "
                    f"before end at {end}",
                )
                return
            end = offset + size

    def finish(self, *, closed: bool, begins_later: bool) -> None:
        """Judges what is left when there are no more lines."""
        self._copies.finish()
        for draw in self.open.values():
            what = f"{draw.left} of the {draw.bytes} bytes of draw {draw.number} are in no line"
            if not closed or begins_later:
                self._rung.cannot_say(_BEFORE_THE_END, draw.place)
            elif not self._losses.excuse_bytes():
                self._rung.fail(draw.place, what)
        if self._ahead:
            missing = max(self._ahead) + 1 - self._floor - len(self._ahead)
            if begins_later:
                self._rung.cannot_say("draws whose line is in an earlier file", count=missing)
            elif not self._losses.excuse("draw", missing):
                self._rung.fail(0, f"{missing} draws have no line, draw {self._floor} the first")
