# SPDX-License-Identifier: Apache-2.0
"""Watches the bytes of one source, draw after draw."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from operator import lt
from typing import Final

from qr_sampler.health.cutoffs import (
    WINDOW,
    most_frequent_cutoff,
    proportion_cutoff,
    repetition_cutoff,
)
from qr_sampler.health.measures import STREAM_TESTS, WHOLE_DRAW_TESTS, DrawMeasures, Measures
from qr_sampler.health.policy import Alarm, HealthPolicy, HealthState, Reading
from qr_sampler.health.whole_draws import SHORTEST_DRAW, plane_tolerance

__all__ = ["HealthMonitor"]

TESTS: Final = (*STREAM_TESTS, *WHOLE_DRAW_TESTS)

MOST_SIZES: Final = 4096
"""Number of sizes of draws whose cut-offs are remembered."""


class HealthMonitor:
    """Tests every draw of one source before anybody uses it. Not safe for several threads at once.

    The two continuous tests go on from draw to draw, however short; draws of at least 512 bytes are
    tested by themselves, too.

    Args:
        policy: What is assumed of the source.
        make_measures: Makes what measures the draws, for runs of at most a given length.

    Examples:
        >>> monitor = HealthMonitor()
        >>> monitor.observe(bytes(100))
        Alarm(test='repetition_count', value=9, cutoff=9, state=<HealthState.FAILED: 'failed'>)
        >>> monitor.state
        <HealthState.FAILED: 'failed'>
    """

    def __init__(
        self,
        policy: HealthPolicy | None = None,
        make_measures: Callable[[int], Measures] = DrawMeasures,
    ) -> None:
        self.policy = policy or HealthPolicy()
        self.state = HealthState.OK
        """State of the source. Failed is for good, until :meth:`restart`."""
        entropy, levels = self.policy.min_entropy, self._levels()
        runs = tuple(repetition_cutoff(entropy, bits) for bits in levels)
        counts = tuple(proportion_cutoff(entropy, bits) for bits in levels)
        self._of_stream = (runs[0], counts[0]), (runs[1], counts[1])
        self._cutoffs: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {}
        """By size of a draw, from which values on it is suspect, and the source has failed."""
        self._measures = make_measures(runs[1])
        self._recent: deque[bool] = deque(maxlen=self.policy.among)
        self._reach = dict(zip(STREAM_TESTS, (runs[1], WINDOW), strict=True))
        """How many bytes lie in what a test of the stream finds at once."""
        self._read = 0
        """Bytes that have been measured."""
        self._counted: dict[str, int] = {}
        """Up to which byte a suspect draw has counted, by the test of the stream that found it."""

    def restart(self) -> None:
        """Begins anew, but for the windows that were seen: the source has passed its start-up."""
        self.state = HealthState.OK
        self._measures.restart()
        self._recent.clear()
        self._counted.clear()

    def observe(self, data: bytes) -> Alarm | None:
        """Returns the gravest finding about the bytes of a draw; ``None`` for a good one.

        Args:
            data: Bytes of the draw, of the type itself: what measures them may be compiled for it.
        """
        values = self._measures.of(data)
        self._read += len(data)
        suspect, failed = self._cutoffs_of(len(data))
        if all(map(lt, values, suspect)):
            self._recent.append(False)
            if self.state is not HealthState.FAILED:
                self.state = HealthState.OK
            return None
        return self.judge(map(Reading, TESTS, values, suspect, failed))

    def read(self, data: bytes) -> list[Reading]:
        """Returns what every test measures in the bytes of the next draw of the stream."""
        values = self._measures.of(data)
        self._read += len(data)
        return list(map(Reading, TESTS, values, *self._cutoffs_of(len(data))))

    def judge(self, readings: Iterable[Reading]) -> Alarm | None:
        """Returns the gravest finding in the readings of a draw, and changes the state by it."""
        alarms = [alarm for reading in readings if (alarm := reading.alarm)]
        failures = [alarm for alarm in alarms if alarm.state is HealthState.FAILED]
        return self._judged(next(iter(failures or alarms), None))

    def _levels(self) -> tuple[int, int]:
        return self.policy.suspect_bits, self.policy.failed_bits

    def _cutoffs_of(self, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if size < SHORTEST_DRAW:
            return self._of_stream
        known = self._cutoffs.get(size)
        if known is None:
            if len(self._cutoffs) >= MOST_SIZES:
                self._cutoffs.clear()
            known = self._cutoffs[size] = self._new_cutoffs(size)
        return known

    def _new_cutoffs(self, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        policy = self.policy
        errors = policy.suspect_errors, policy.failed_errors
        planes = [plane_tolerance(size, each) for each in errors]
        differences = [
            most_frequent_cutoff(size - 1, policy.min_entropy, bits) for bits in self._levels()
        ]
        of_suspect, of_failed = self._of_stream
        return (
            (*of_suspect, 1, planes[0], differences[0]),
            (*of_failed, 1, planes[1], differences[1]),
        )

    def _judged(self, worst: Alarm | None) -> Alarm | None:
        """Returns *worst*, or that there were too many of its kind, and changes the state by it."""
        worst = self._weighed(worst)
        if self.state is not HealthState.FAILED:
            self.state = worst.state if worst else HealthState.OK
        return worst

    def _weighed(self, alarm: Alarm | None) -> Alarm | None:
        """Returns *alarm*, or one that says that there were too many of its kind."""
        self._recent.append(alarm is not None and not self._is_old(alarm))
        if alarm is None or alarm.state is HealthState.FAILED:
            return alarm
        suspect, most = sum(self._recent), self.policy.most_suspect
        if suspect < most:
            return alarm
        return Alarm("suspect_draws", suspect, most, HealthState.FAILED)

    def _is_old(self, alarm: Alarm) -> bool:
        """Returns whether a test of the stream has found what it found in an earlier draw.

        One run and one window reach into many short draws, all of which are suspect then. They are
        one piece of evidence, not three.
        """
        reach, counted = self._reach.get(alarm.test), self._counted.get(alarm.test)
        if reach is None:
            return False
        if counted is not None and self._read - counted < reach:
            return True
        self._counted[alarm.test] = self._read
        return False
