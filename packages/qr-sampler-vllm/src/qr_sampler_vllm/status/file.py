# SPDX-License-Identifier: Apache-2.0
"""The status file of one engine for its front end, written rarely and never by a step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from qr_sampler_vllm.status.run_directory import publish

__all__ = ["REPEAT_S", "StatusFile"]

REST_S: Final = 0.5
"""Minimum time between two writes, in seconds."""

REPEAT_S: Final = 10.0
"""Time after which an unchanged status is written again, in seconds: it shows that the process is
not stuck, and keeps cleaners of old temporary files from removing the directory."""

logger = logging.getLogger("vllm.qr_sampler")


class StatusFile:
    """The file of one engine in the run directory of its front end.

    Args:
        name: Name of the file, without an ending.
        clock: Returns the time in seconds, from any origin.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._written: Mapping[str, Any] | None = None
        self._written_at = 0.0
        self._refused = False

    def update(self, status: Mapping[str, Any]) -> None:
        """Writes *status* if an update is due: it has changed, or was written long ago.

        A failed write is logged once.

        Args:
            status: JSON-ready values.
        """
        now = self._clock()
        if self._written is not None:
            waited = now - self._written_at
            if waited < (REST_S if status != self._written else REPEAT_S):
                return
        self._written, self._written_at = status, now
        try:
            times = {"said_wall_time_ns": time.time_ns(), "said_monotonic_ns": time.monotonic_ns()}
            publish(self._name, {**status, **times})
        except OSError as error:
            if not self._refused:
                self._refused = True
                logger.warning("the status of the engine cannot be published: %s", error)
