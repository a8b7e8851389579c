# SPDX-License-Identifier: Apache-2.0
"""Rounds of a public beacon, which another process leaves beside a ledger that is being written.

Nobody knows a round before its time, so whatever follows it in the chain was written after that.
"""

from __future__ import annotations

import math
import os
import stat
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

__all__ = ["BEACON_NAME", "BeaconFile"]

BEACON_NAME: Final = "beacon.json"
"""Name of the file, in the directory of the ledger's name that ends in ``.anchors``."""

_INTERVAL_S: Final = 10.0
_LARGEST: Final = 2**12

_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Signature = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{2,1024}$")]
_Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class _Round(msgspec.Struct):
    """What the file says."""

    chain: _Digest
    round: _Number
    signature: _Signature


_decode: Final = msgspec.json.Decoder(_Round).decode


class BeaconFile:
    """Looks at the file every ten seconds, and takes in what is new.

    The round is not verified here: an audit does that.
    """

    def __init__(self) -> None:
        self._next_s = -math.inf
        self._latest = 0

    def lines(self, ledger: Path) -> list[tuple[str, dict[str, Any]]]:
        """Returns a line with the round, if there is a later one than before. Never waits.

        Args:
            ledger: The file that is being written.
        """
        if time.monotonic() < self._next_s:
            return []
        self._next_s = time.monotonic() + _INTERVAL_S
        try:
            found = _decode(_read(ledger.with_suffix(".anchors") / BEACON_NAME))
        except (OSError, ValueError, msgspec.MsgspecError):
            # There is none, or it is another one's.
            return []
        if found.round <= self._latest:
            return []
        self._latest = found.round
        fields = {
            "chain": found.chain,
            "round": found.round,
            "signature": found.signature,
            "wall_time_ns": time.time_ns(),
        }
        return [("anchor", fields)]


def _read(path: Path) -> bytes:
    # Not to wait for whoever opens the other end of a pipe.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise ValueError(f"{path} is no small file")
        return os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)
