# SPDX-License-Identifier: Apache-2.0
"""Tells the operator that sequences end early, without filling the log with it."""

from __future__ import annotations

import logging
import time
from typing import Final

__all__ = ["EARLY_ENDS_EVERY_S", "EarlyEndLog"]

EARLY_ENDS_EVERY_S: Final = 10.0
"""An outage ends every request that comes, so one line in so many seconds tells of all of them."""


class EarlyEndLog:
    """Logs at once if nothing was logged lately, and otherwise adds up for the next line.

    Args:
        logger: Where it is logged, as errors.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._next_s = -float("inf")
        self._ended = 0

    def ended(self, count: int, reason: object) -> None:
        """Takes note of *count* sequences that end early.

        Args:
            count: Number of sequences.
            reason: Why they do; the latest one is logged.
        """
        self._ended += count
        now = time.monotonic()
        if now >= self._next_s:
            self._logger.error("%s; %d sequences end early", reason, self._ended)
            self._ended, self._next_s = 0, now + EARLY_ENDS_EVERY_S
