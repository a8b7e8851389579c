# SPDX-License-Identifier: Apache-2.0
"""What is told of the lines of a ledger as they are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from qr_sampler.records.entries import NamedSequence, RecordedDraw
from qr_sampler.records.sidecars.file import SidecarFile

__all__ = ["Sidecar"]


class Sidecar:
    """Keeps beside a ledger what its lines leave out. For the use of the writing thread.

    It hears of every line just before that is made, and hands pieces to its :attr:`file`.

    Args:
        file: Where the pieces go.
    """

    kind: ClassVar[str]
    """What a piece is called in a ``gap`` line, if the disk has not taken it."""

    def __init__(self, file: SidecarFile) -> None:
        self.file = file

    def sequence(self, sequence: NamedSequence) -> None:
        """Takes note of a sequence whose line comes next; does nothing as it stands.

        A sequence that is told of again in another file comes again.

        Args:
            sequence: The sequence.
        """

    def draw(self, number: int, draw: RecordedDraw) -> None:
        """Takes note of a draw whose line comes next; does nothing as it stands.

        A draw that is told of again in another file comes again.

        Args:
            number: Its number in the run.
            draw: The draw.
        """

    def flush(self) -> Mapping[str, int]:
        """Writes what waits; never raises for what the disk does.

        Returns:
            The number of pieces that have been given up since the last call, by the reason that a
            ``gap`` line gives.
        """
        return {"refused": self.file.flush()}

    def end(self) -> Mapping[str, int]:
        """Writes what waits and closes the file; returns what is lost, as :meth:`flush` does."""
        lost = Counter(self.flush())
        lost["refused"] += self.file.end()
        return lost
