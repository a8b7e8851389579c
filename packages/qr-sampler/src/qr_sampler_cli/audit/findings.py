# SPDX-License-Identifier: Apache-2.0
"""The rungs of the ladder, and what was found on each."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["MOST_LISTED", "Failure", "Places", "Rung", "Status", "Unsaid", "ladder"]

Status = Literal["holds", "fails", "cannot be said"]

MOST_LISTED: Final = 20
"""Failures, and reasons why something cannot be said, that a rung lists; it counts them all."""

_MOST_TEXTS: Final = 100


class Places:
    """Gives every line of several files one number, and says which file and line it is.

    A place is such a number; 0 is no line.
    """

    def __init__(self) -> None:
        self._files: list[str] = []
        self._bases: list[int] = []
        self.last = 0
        """The place of the line that is being read."""

    def begin(self, file: str) -> None:
        """Goes on with the lines of *file*."""
        self._files.append(file)
        self._bases.append(self.last)

    def name(self, place: int) -> str:
        """Returns the place as ``FILE:LINE``, with lines counted from 1; empty for no line."""
        if not place:
            return ""
        index = bisect_right(self._bases, place - 1) - 1
        return f"{self._files[index]}:{place - self._bases[index]}"


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that is wrong."""

    where: str
    """``FILE:LINE``."""
    what: str
    """What is wrong there."""


@dataclass(slots=True)
class Unsaid:
    """Something that the records cannot show."""

    what: str
    """What it is, and what is missing."""
    where: str
    """The first line that it is about, as ``FILE:LINE``; empty for the whole."""
    count: int = 0
    """How often it came."""


@dataclass(slots=True)
class Rung:
    """One rung, and what was found on it."""

    number: int
    """Its number, from 1."""
    name: str
    """What it is called."""
    claim: str
    """What it says if it holds."""
    places: Places
    """Names the places of findings."""
    failures: list[Failure] = field(default_factory=list)
    """The first failures."""
    failed: int = 0
    """How many there are."""
    unsaid: dict[str, Unsaid] = field(default_factory=dict)
    """What cannot be said, by its text."""
    notes: list[str] = field(default_factory=list)
    """Remarks that judge nothing."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What was measured, as JSON-ready values."""

    def fail(self, place: int, what: str) -> None:
        """Notes a failure at *place*."""
        self.failed += 1
        if len(self.failures) < MOST_LISTED:
            self.failures.append(Failure(self.places.name(place), what))

    def cannot_say(self, what: str, place: int = 0, count: int = 1) -> None:
        """Notes that something cannot be said; of different texts only the first are kept."""
        if what not in self.unsaid and len(self.unsaid) >= _MOST_TEXTS:
            what = "more than can be listed"
        if what not in self.unsaid:
            self.unsaid[what] = Unsaid(what, self.places.name(place))
        self.unsaid[what].count += count

    def note(self, what: str) -> None:
        """Adds a remark, if there are not too many yet."""
        if len(self.notes) < MOST_LISTED:
            self.notes.append(what)

    def note_once(self, what: str) -> None:
        """Adds a remark unless it is there."""
        if what not in self.notes:
            self.note(what)

    @property
    def status(self) -> Status:
        """The worst of what was found."""
        if self.failed:
            return "fails"
        return "cannot be said" if self.unsaid else "holds"


_RUNGS: Final = (
    ("whole", "every line is intact and in its place, from the genesis to the close"),
    ("complete", "no token and no byte of a draw is missing, and none is there twice"),
    ("just in time", "by the recorded clocks, logits came before the request for bytes"),
    ("consistent", "numbers and digests that follow from others are those that follow"),
    ("witnessed", "others have signed bytes, order and time"),
    ("re-derived", "the model and u give the same tokens again"),
)


def ladder(places: Places) -> list[Rung]:
    """Returns the rungs, from the lowest, with nothing found yet."""
    return [
        Rung(number, name, claim, places) for number, (name, claim) in enumerate(_RUNGS, start=1)
    ]
