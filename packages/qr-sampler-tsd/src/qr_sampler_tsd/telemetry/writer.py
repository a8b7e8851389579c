# SPDX-License-Identifier: Apache-2.0
"""Every run has its own directory, which only its owner can read."""

from __future__ import annotations

import os
import secrets
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from qr_sampler_tsd.errors import ExperimentError
from qr_sampler_tsd.telemetry.events import MEASURED, TelemetryEvent, as_values, line_of
from qr_sampler_tsd.telemetry.summary import Summary

__all__ = ["EVENTS_FILE", "SUMMARY_FILE", "RunWriter"]

EVENTS_FILE: Final = "tsd_metrics.jsonl"
SUMMARY_FILE: Final = "tsd_summary.csv"


class RunWriter:
    """Writes ``<root>/<date>/<run id>/tsd_metrics.jsonl``, and beside it the summary when closed.

    The date is that of UTC. Two runs never share a directory, also within one second. It is made
    with the first event, so that a run which is refused leaves nothing behind.

    Args:
        root: Made if it is not there.
        mode: Begins the id of the run, for example ``M0``.
    """

    def __init__(self, root: Path, mode: str) -> None:
        now = datetime.now(timezone.utc)
        self.run_id = f"{mode.lower()}-{now:%H%M%S}-{secrets.token_hex(4)}"
        """Unique."""
        self.directory = root / f"{now:%Y-%m-%d}" / self.run_id
        """Where the files are."""
        self.summary = Summary(MEASURED)
        """Moments of the events so far."""
        self._events: TextIO | None = None

    def write(self, event: TelemetryEvent) -> None:
        """Appends one event.

        Raises:
            ExperimentError: When the directory cannot be made.
            ValueError: After :meth:`close`.
        """
        if self._events is None:
            self._events = self._begin()
        values = as_values(event)
        self._events.write(line_of(values))
        self.summary.add(values)

    def _begin(self) -> TextIO:
        try:
            self.directory.mkdir(mode=0o700, parents=True)
            return _private(self.directory / EVENTS_FILE)
        except OSError as error:
            raise ExperimentError(
                f"the run directory {self.directory} cannot be made: {error}; choose another root"
            ) from error

    def close(self) -> None:
        """Writes the summary, if there are events; none can follow."""
        if self._events is None or self._events.closed:
            return
        self._events.close()
        with _private(self.directory / SUMMARY_FILE) as file:
            self.summary.write(file)

    def __enter__(self) -> RunWriter:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes, also after an error: what was measured until then is kept."""
        self.close()


def _private(path: Path) -> TextIO:
    """Opens a new file that only its owner can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(handle, "w", encoding="utf-8", newline="")
