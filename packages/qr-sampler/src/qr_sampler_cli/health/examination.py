# SPDX-License-Identifier: Apache-2.0
"""Many draws of one source under the health tests, within its quotas."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from qr_sampler.entropy import EntropySource
from qr_sampler.health import Alarm, HealthMonitor, HealthState, Reading
from qr_sampler_cli.baseline.pace import Pace

__all__ = ["Findings", "HealthExamination"]


@dataclass(slots=True)
class Findings:
    """What one test has found in all draws."""

    test: str
    """Name of the test."""
    largest: float
    """Largest value that it measured."""
    suspect: float
    """From which value on a draw is suspect."""
    failed: float
    """From which value on the source has failed."""
    suspect_draws: int = 0
    """Draws that the test found suspect."""
    failed_draws: int = 0
    """Draws by which the source has failed."""

    @property
    def state(self) -> HealthState:
        """The gravest finding of the test."""
        if self.failed_draws:
            return HealthState.FAILED
        return HealthState.SUSPECT if self.suspect_draws else HealthState.OK


class HealthExamination:
    """Draws from *source* and keeps what the tests of *monitor* find.

    Args:
        source: The bare source; a failed draw ends the examination.
        monitor: The tests, fresh.
        block_bytes: Bytes of each draw.
        sleep: Waits for a number of seconds, for the quota.
    """

    def __init__(
        self,
        source: EntropySource,
        monitor: HealthMonitor,
        block_bytes: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.draws = 0
        """Draws so far."""
        self.tests: dict[str, Findings] = {}
        """What each test found, by its name."""
        self.failure: Alarm | None = None
        """What the source has failed by; ``None`` if it has not."""
        self._source = source
        self._monitor = monitor
        self._block_bytes = block_bytes
        self._pace = Pace(source.limits, block_bytes, time.monotonic)
        self._sleep = sleep

    def run(self, draws: int, progress: Callable[[int, int], None]) -> None:
        """Makes *draws* draws, and goes on after a failure, so that all tests have their say.

        Args:
            draws: Number of draws.
            progress: Called with the number of draws made and *draws* after each of them.

        Raises:
            EntropyUnavailableError: When a draw fails.
        """
        while self.draws < draws:
            self._sleep(self._pace.pause_s())
            readings = self._monitor.read(self._source.draw(self._block_bytes).data)
            self.draws += 1
            alarm = self._monitor.judge(readings)
            if self.failure is None and alarm and alarm.state is HealthState.FAILED:
                self.failure = alarm
            for reading in readings:
                self._note(reading)
            progress(self.draws, draws)

    def _note(self, reading: Reading) -> None:
        test, value, suspect, failed = reading
        summary = self.tests.setdefault(test, Findings(test, value, suspect, failed))
        summary.largest = max(summary.largest, value)
        if value >= failed:
            summary.failed_draws += 1
        elif value >= suspect:
            summary.suspect_draws += 1
