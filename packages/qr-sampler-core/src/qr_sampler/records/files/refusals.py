# SPDX-License-Identifier: Apache-2.0
"""What is known and said of a disk that refuses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

__all__ = ["Refusals"]

logger = logging.getLogger("qr_sampler.records.ledger")

_WITHOUT: Final = "sampling continues without them until the disk accepts writes again"
_WAITING: Final = "they wait until the disk accepts writes again"


class Refusals:
    """Whether a disk refuses, which is reported once until it accepts everything again.

    Args:
        wait: Whether records wait for it.
    """

    def __init__(self, *, wait: bool) -> None:
        self.refused = False
        """Whether it has refused what was written last."""
        self.unsynced = False
        """Whether it could not say that it has what was written."""
        self._meanwhile = _WAITING if wait else _WITHOUT
        self._reported = False

    def __bool__(self) -> bool:
        return self.refused or self.unsynced

    def refuse(self, path: Path, error: OSError) -> None:
        """Notes that it refuses what is written to *path*."""
        self.refused = True
        self.report(path, error)

    def report(self, path: Path, error: OSError) -> None:
        """Says so, unless that has been said."""
        if not self._reported:
            self._reported = True
            logger.error("cannot write records to %s: %s; %s", path, error, self._meanwhile)

    def settle(self) -> None:
        """Has the next refusal reported if the disk accepts everything now."""
        self._reported &= bool(self)
