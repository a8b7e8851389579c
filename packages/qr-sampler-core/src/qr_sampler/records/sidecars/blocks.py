# SPDX-License-Identifier: Apache-2.0
"""The bytes of draws beside a ledger, so that what was made of them can be made again.

A file begins with a magic number. Then come pieces, one for every ``draw`` line and in their order:
the number of the draw and the length of what it has brought, each as eight bytes, most significant
first, and the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar, Final

from qr_sampler.records.entries import RecordedDraw
from qr_sampler.records.sidecars.file import SidecarFile
from qr_sampler.records.sidecars.sidecar import Sidecar

__all__ = ["BLOCKS_MAGIC", "BLOCKS_SUFFIX", "PIECE_HEADER", "BlocksSidecar"]

BLOCKS_MAGIC: Final = b"QRBLOCKS1\n"
"""What a file begins with."""

BLOCKS_SUFFIX: Final = ".blocks"
"""What takes the place of ``.jsonl`` in its name."""

PIECE_HEADER: Final = struct.Struct(">QQ")
"""Number of the draw, and how many bytes follow."""


class BlocksSidecar(Sidecar):
    """Writes the bytes of every draw.

    Args:
        sync_s: Time in seconds after which a write makes sure that the disk itself has everything.
    """

    kind: ClassVar[str] = "block"

    def __init__(self, sync_s: float) -> None:
        super().__init__(SidecarFile(BLOCKS_SUFFIX, BLOCKS_MAGIC, sync_s=sync_s))
        self._not_kept = 0

    def draw(self, number: int, draw: RecordedDraw) -> None:
        """Hands on the bytes of a draw, unless there was no room to keep them."""
        data = draw.data
        if data is None:
            self._not_kept += 1
        else:
            self.file.put(PIECE_HEADER.pack(number, len(data)) + data)

    def flush(self) -> Mapping[str, int]:
        """Writes what waits; returns what is lost, those that there was no room for included."""
        not_kept, self._not_kept = self._not_kept, 0
        return {**super().flush(), "overflow": not_kept}
