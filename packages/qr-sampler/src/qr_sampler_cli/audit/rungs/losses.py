# SPDX-License-Identifier: Apache-2.0
"""Rung 2: what gaps say is lost, and what is missed of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from qr_sampler_cli.audit.blocks.stored import KINDS_BESIDE
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.schema.lines import KINDS

__all__ = ["Losses"]

_ANY_KIND: Final = "lines"
"""What gaps of version 1 count: lines, and not of which kind."""

_POSITIONED: Final = ("token", "forced", "undecided")
"""Kinds whose lines take a position in a sequence."""

_MOST_DRAWS: Final = 3
"""Most draws that the bytes of one token are from: those of a draft, its test, and another one."""


class Losses:
    """Counts the lost lines of each kind, and what can be missing because of them.

    One lost line leaves several things behind that are missed, each of which is counted for itself:
    of a token its position in the sequence, its bytes in the draw, and what its ``emission`` is
    about.

    Args:
        rung: Takes the findings.
    """

    def __init__(self, rung: Rung) -> None:
        self._rung = rung
        self._told: Counter[str] = Counter()
        self._missed: Counter[str] = Counter()

    def tell(self, missing: Mapping[str, int]) -> None:
        """Takes in what a gap says."""
        for kind, count in missing.items():
            if kind in KINDS_BESIDE:
                continue
            self._told[kind if kind in KINDS or kind == _ANY_KIND else "unknown"] += count

    def any_positions(self) -> bool:
        """Returns whether lines are lost that take a position in a sequence."""
        return self._lost(*_POSITIONED) > 0

    def excuse(self, kind: str, count: int = 1) -> bool:
        """Returns whether *count* more missing lines of a kind are among those that are lost."""
        return self._excuse(kind, count, self._lost(kind))

    def excuse_positions(self, count: int) -> bool:
        """Returns whether the lines of *count* more positions can be lost."""
        return self._excuse("positions", count, self._lost(*_POSITIONED))

    def excuse_emission(self) -> bool:
        """Returns whether one more token whose ``emission`` is there can be lost."""
        return self._excuse("token of an emission", 1, self._lost("token"))

    def excuse_bytes(self) -> bool:
        """Returns whether one more draw can have lost the lines of some of its bytes."""
        lost = _MOST_DRAWS * self._lost("token") + self._told["discard"]
        return self._excuse("bytes of a draw", 1, lost)

    def _lost(self, *kinds: str) -> int:
        return sum(self._told[kind] for kind in (*kinds, _ANY_KIND))

    def _excuse(self, what: str, count: int, lost: int) -> bool:
        if self._missed[what] + count > lost:
            return False
        self._missed[what] += count
        return True

    def finish(self) -> None:
        """Says what is lost."""
        for kind, count in self._told.items():
            if count:
                self._rung.cannot_say(
                    f"{kind} lines are missing where a gap says that they were lost", count=count
                )
