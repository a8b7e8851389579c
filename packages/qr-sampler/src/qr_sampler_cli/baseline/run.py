# SPDX-License-Identifier: Apache-2.0
"""Measuring a baseline: within quotas, despite failures, and with a file to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qr_sampler.amplification import BaselineMeasurement
from qr_sampler.entropy import EntropySource
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler_cli.baseline.pace import Pace
from qr_sampler_cli.terminal.durations import duration

__all__ = ["BaselineRun"]

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
KEPT_EVERY_S: Final = 30.0
"""The most that a run loses if it is killed."""
TOLD_FROM_S: Final = 5.0
"""Shorter pauses are over before anybody could read about them."""


class BaselineRun:
    """One run of a measurement, from its first block or from where an earlier run ended.

    A failed draw is repeated after a pause. The very first one of a run is not, unless the
    source asks for a wait: a mistake in the settings should be reported at once.

    Args:
        source: The bare device.
        kept: File for the counts while they are incomplete.
        block_bytes: Bytes of each block.
        patience_s: Longest time without a block, in seconds, not counting waits of known length.
        tell: Called with a message about every long wait.
        clock: Monotonic seconds.
        sleep: Waits for a number of seconds.

    Raises:
        ConfigError: When *kept* holds anything but a measurement of this source.
    """

    def __init__(
        self,
        source: EntropySource,
        kept: Path,
        *,
        block_bytes: int,
        patience_s: float,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.measurement = _begun(source, kept, block_bytes)
        self.failures = 0
        """Draws that failed and were repeated."""
        self._source = source
        self._kept = kept
        self._patience_s = patience_s
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        self._pace = Pace(source.limits, block_bytes, clock)
        self._began_with = self.measurement.blocks
        self._kept_at = self._progress_at = clock()
        self._streak = 0
        self._known_wait_s = 0.0

    def measure(self, blocks: int, progress: Callable[[int, int], None]) -> None:
        """Measures until there are *blocks* blocks.

        Args:
            blocks: Total number of blocks.
            progress: Called with the number of blocks done and *blocks* after every block.

        Raises:
            EntropyUnavailableError: When the source does not deliver for too long.
        """
        with self._keeping():
            while self.measurement.blocks < blocks:
                self._sleep(self._pace.pause_s())
                try:
                    self.measurement.measure_block(self._source)
                except EntropyUnavailableError as error:
                    self._wait_after(error)
                    continue
                self._note_block()
                progress(self.measurement.blocks, blocks)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Saves the counts when the block fails or is interrupted by the user."""
        try:
            yield
        except BaseException:
            if self.measurement.blocks > self._began_with:
                self.measurement.save(self._kept)
                self._tell(
                    f"{self.measurement.blocks:,} blocks are kept in {self._kept}; the same "
                    "command resumes from there"
                )
            raise

    def _note_block(self) -> None:
        now = self._progress_at = self._clock()
        self._streak, self._known_wait_s = 0, 0.0
        if now - self._kept_at >= KEPT_EVERY_S:
            self.measurement.save(self._kept)
            self._kept_at = now

    def _wait_after(self, error: EntropyUnavailableError) -> None:
        """Pauses after a failed draw.

        Raises:
            EntropyUnavailableError: When another attempt is pointless.
        """
        known_s = error.retry_after_s
        begun = self.failures > 0 or self.measurement.blocks > self._began_with
        if known_s == math.inf or (known_s is None and not begun):
            raise error
        # Of several waits of known length the longest is granted: a quota recovers once.
        self._known_wait_s = max(self._known_wait_s, known_s or 0.0)
        waited_s = self._clock() - self._progress_at - self._known_wait_s
        if waited_s >= self._patience_s:
            raise error
        self.failures += 1
        self._streak += 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._streak - 1, 30))
        pause_s = max(pause_s, known_s or 0.0)
        if pause_s >= TOLD_FROM_S:
            self._tell(f"{error.reason}; trying again in {duration(pause_s)}")
        self._sleep(pause_s)


def _begun(source: EntropySource, kept: Path, block_bytes: int) -> BaselineMeasurement:
    fresh = BaselineMeasurement.of(source, block_bytes=block_bytes)
    if not kept.exists():
        return fresh
    earlier = BaselineMeasurement.load(kept)
    if _described(earlier) != _described(fresh):
        raise ConfigError(
            f"{kept} holds blocks of {_described(earlier)}, and this would be {_described(fresh)}; "
            "remove it to start over, or choose another --output"
        )
    if not earlier.latencies_ns:
        # Of a version that kept nothing of this.
        told = {"settings": fresh.settings, "conditioning": fresh.conditioning}
        return earlier.model_copy(update=told)
    if (earlier.settings, earlier.conditioning) != (fresh.settings, fresh.conditioning):
        raise ConfigError(
            f"{kept} holds blocks of {source.name!r} with other settings or another conditioning; "
            "remove it to start over, or set them as they were"
        )
    return earlier


def _described(measurement: BaselineMeasurement) -> str:
    origin = f"{measurement.source_distribution} {measurement.source_version}".strip()
    return f"{measurement.block_bytes} bytes from {measurement.source!r} ({origin or 'unknown'})"
