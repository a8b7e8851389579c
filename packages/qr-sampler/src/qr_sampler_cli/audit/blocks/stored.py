# SPDX-License-Identifier: Apache-2.0
"""Rung 4, data_sha256: the bytes of every draw, if they stand beside the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from qr_sampler.records.sidecars.pieces import BlocksFile, NoBlocksError, Piece
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.schema.token_lines import Draw

__all__ = ["KINDS_BESIDE", "LARGEST_BLOCK", "StoredBlocks", "StoredDraw"]

LARGEST_BLOCK: Final = 2**24
"""A block has fewer bytes."""

KINDS_BESIDE: Final = frozenset({"block", "prompt"})
"""What gaps call pieces of the files beside a ledger, which are no lines."""

_NOT_THERE: Final = "the bytes of draws that are not among those beside the ledger"


class StoredDraw(NamedTuple):
    """Where the bytes of a draw are."""

    file: BlocksFile
    piece: Piece

    def block(self, offset: int | None, size: int) -> bytes | None:
        """Returns the bytes of a row; ``None`` if they are not there."""
        if offset is None or size >= LARGEST_BLOCK or offset + size > self.piece.size:
            return None
        return self.file.read(self.piece.start + offset, size)


class StoredBlocks:
    """Follows the pieces of the files beside the ledgers of a run, in the order of draw lines.

    Args:
        rung: Takes the findings.
    """

    def __init__(self, rung: Rung) -> None:
        self._rung = rung
        self._file: BlocksFile | None = None
        self._waiting: Piece | None = None
        """The next piece, whose line has not come."""
        self._losses = False
        """Whether a gap has told of lost lines, so that pieces may have none."""
        self.compared = 0
        """Number of draws whose digest is that of their bytes."""
        self.missing = False
        """Whether a ledger has no such file beside it."""

    def begin_file(self, ledger: Path, place: int, *, closed: bool) -> None:
        """Goes on with the file beside another ledger.

        Args:
            ledger: The ledger.
            place: The line before its first one.
            closed: Whether that is the ``close`` of the ledger before.
        """
        self._leave(place, closed=closed)
        try:
            self._file = BlocksFile(ledger)
        except FileNotFoundError:
            self.missing = True
        except NoBlocksError as error:
            self._rung.fail(place + 1, f"{error}; the bytes of its draws are not judged")

    def gap(self, missing: Mapping[str, int]) -> None:
        """Takes note of lines that are lost.

        Args:
            missing: Their number by kind.
        """
        self._losses |= any(kind not in KINDS_BESIDE for kind in missing) or not missing

    def draw(self, line: Draw, place: int) -> StoredDraw | None:
        """Returns the bytes of a draw if they are there, and those that its line tells of."""
        file = self._file
        if file is None:
            return None
        piece = self._piece_of(line.draw, place, file)
        if piece is None:
            self._rung.cannot_say(_NOT_THERE, place)
            return None
        if piece.size != line.bytes:
            self._rung.fail(
                place,
                f"draw {line.draw} has {line.bytes} bytes, and {file.path.name} says {piece.size}",
            )
            return None
        if not piece.whole:
            self._rung.cannot_say(_NOT_THERE, place)
            return None
        if file.digest(piece) != line.data_sha256:
            self._rung.fail(
                place,
                f"draw {line.draw}: its data_sha256 is not that of its bytes in {file.path.name}",
            )
            return None
        self.compared += 1
        return StoredDraw(file, piece)

    def finish(self, place: int, *, closed: bool) -> None:
        """Judges what is left of the last file.

        Args:
            place: The last line.
            closed: Whether that is a ``close``.
        """
        self._leave(place, closed=closed)

    def _piece_of(self, number: int, place: int, file: BlocksFile) -> Piece | None:
        """Returns the piece of a draw, and passes over those before it that have no line."""
        while True:
            piece = self._waiting or file.next()
            self._waiting = piece
            if piece is None or piece.number > number:
                return None
            self._waiting = None
            if piece.number == number:
                return piece
            self._without_line(piece, place, file)

    def _without_line(self, piece: Piece, place: int, file: BlocksFile) -> None:
        if self._losses:
            self._rung.cannot_say("what bytes of draws were for whose lines are lost", place)
        else:
            self._rung.fail(
                place,
                f"{file.path.name} has bytes of draw {piece.number} where no line tells of them",
            )

    def _leave(self, place: int, *, closed: bool) -> None:
        """Closes the file; what is left in it has no line, which was to come if there is no end."""
        file, self._file = self._file, None
        if file is None:
            return
        piece, self._waiting = self._waiting or file.next(), None
        if piece is not None and piece.whole and closed:
            self._without_line(piece, place, file)
        file.close()
