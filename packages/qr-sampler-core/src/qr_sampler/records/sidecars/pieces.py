# SPDX-License-Identifier: Apache-2.0
"""The file with the bytes of draws that stands beside a ledger, whatever it holds."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from qr_sampler.errors import QRSamplerError
from qr_sampler.records.sidecars.blocks import BLOCKS_MAGIC, BLOCKS_SUFFIX, PIECE_HEADER

__all__ = ["BlocksFile", "NoBlocksError", "Piece"]

_CHUNK: Final = 2**20
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class NoBlocksError(QRSamplerError, ValueError):
    """A file of blocks cannot be used; says why."""


class Piece(NamedTuple):
    """What the file holds of one draw."""

    number: int
    """The draw that it says it is of."""
    start: int
    """Where its bytes begin in the file."""
    size: int
    """How many it says there are."""
    whole: bool
    """Whether the file has all of them."""


class BlocksFile:
    """The pieces of a file, one by one and in bounded memory, as long as it is when it is opened.

    Args:
        ledger: The ledger that it stands beside.

    Raises:
        FileNotFoundError: When there is none.
        NoBlocksError: When it is no file of blocks, or cannot be read.
    """

    def __init__(self, ledger: Path) -> None:
        self.path = self.beside(ledger)
        try:
            # Not to wait for whoever opens the other end of a pipe.
            self._descriptor = os.open(self.path, _FLAGS)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NoBlocksError(f"{self.path.name} cannot be read: {error.strerror}") from error
        try:
            self._size = self._checked_size()
        except NoBlocksError:
            self.close()
            raise
        self._at = min(len(BLOCKS_MAGIC), self._size)

    @staticmethod
    def beside(ledger: Path) -> Path:
        """Returns where the file of *ledger* is, if there is one."""
        return ledger.with_name(ledger.stem + BLOCKS_SUFFIX)

    def next(self) -> Piece | None:
        """Returns the next piece; ``None`` at the end, and where not even its head is whole."""
        head = self.read(self._at, PIECE_HEADER.size)
        if head is None:
            self._at = self._size
            return None
        number, size = PIECE_HEADER.unpack(head)
        start = self._at + PIECE_HEADER.size
        self._at = min(start + size, self._size)
        return Piece(number, start, size, start + size <= self._size)

    def digest(self, piece: Piece) -> str:
        """Returns the SHA-256 of the bytes of a whole piece; empty if they cannot be read."""
        digest = hashlib.sha256()
        end = piece.start + piece.size
        for start in range(piece.start, end, _CHUNK):
            chunk = self.read(start, min(_CHUNK, end - start))
            if chunk is None:
                return ""
            digest.update(chunk)
        return digest.hexdigest()

    def read(self, start: int, size: int) -> bytes | None:
        """Returns *size* bytes; ``None`` if there are fewer, or the file is closed."""
        if self._descriptor < 0 or start + size > self._size:
            return None
        try:
            os.lseek(self._descriptor, start, os.SEEK_SET)
            data = os.read(self._descriptor, size)
        except OSError:
            return None
        return data if len(data) == size else None

    def close(self) -> None:
        """Closes the file; what is to be read later is not there."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _checked_size(self) -> int:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NoBlocksError(f"{self.path.name} is no regular file")
        self._size = status.st_size
        magic = self.read(0, min(len(BLOCKS_MAGIC), self._size))
        # A write of the beginning that was cut short is a torn end like any other.
        if magic is None or not BLOCKS_MAGIC.startswith(magic):
            raise NoBlocksError(f"{self.path.name} does not begin like a file of blocks")
        return self._size
