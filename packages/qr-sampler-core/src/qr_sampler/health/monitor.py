# SPDX-License-Identifier: Apache-2.0
"""Watches the bytes of one source, draw after draw."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from qr_sampler.health.continuous import AdaptiveProportion, RepetitionCount
from qr_sampler.health.cutoffs import most_frequent_cutoff, proportion_cutoff, repetition_cutoff
from qr_sampler.health.policy import Alarm, HealthPolicy, HealthState, Reading
from qr_sampler.health.repeated_windows import RepeatedWindows
from qr_sampler.health.whole_draws import (
    SHORTEST_DRAW,
    bit_plane_shares,
    most_frequent_difference,
    plane_tolerance,
)

__all__ = ["HealthMonitor"]


class HealthMonitor:
    """Tests every draw of one source before anybody uses it. Not safe for several threads at once.

    The two continuous tests go on from draw to draw, however short; draws of at least 512 bytes are
    tested by themselves, too.

    Args:
        policy: What is assumed of the source.

    Examples:
        >>> monitor = HealthMonitor()
        >>> monitor.observe(bytes(100))
        Alarm(test='repetition_count', value=9, cutoff=9, state=<HealthState.FAILED: 'failed'>)
        >>> monitor.state
        <HealthState.FAILED: 'failed'>
    """

    def __init__(self, policy: HealthPolicy | None = None) -> None:
        self.policy = policy or HealthPolicy()
        self.state = HealthState.OK
        """State of the source. Failed is for good, until :meth:`restart`."""
        self._windows = RepeatedWindows()
        self._begin()

    def restart(self) -> None:
        """Begins anew, but for the windows that were seen: the source has passed its start-up."""
        self.state = HealthState.OK
        self._begin()

    def observe(self, data: bytes) -> Alarm | None:
        """Returns the gravest finding about the bytes of a draw; ``None`` for a good one."""
        return self.judge(self.read(data))

    def read(self, data: bytes) -> list[Reading]:
        """Returns what every test measures in the bytes of the next draw of the stream."""
        samples = np.frombuffer(data, dtype=np.uint8)
        # All tests see all bytes: what goes on from draw to draw may not miss any.
        readings = [
            Reading("repetition_count", self._runs.add(samples), *self._run_cutoffs),
            Reading("adaptive_proportion", self._proportion.add(samples), *self._count_cutoffs),
        ]
        if len(samples) >= SHORTEST_DRAW:
            readings += (
                Reading("repeated_windows", self._windows.add(samples), 1, 1),
                self._planes_of(samples),
                self._differences_of(samples),
            )
        return readings

    def judge(self, readings: Iterable[Reading]) -> Alarm | None:
        """Returns the gravest finding in the readings of a draw, and changes the state by it."""
        alarms = [alarm for reading in readings if (alarm := reading.alarm)]
        failures = [alarm for alarm in alarms if alarm.state is HealthState.FAILED]
        worst = self._weighed(next(iter(failures or alarms), None))
        if self.state is not HealthState.FAILED:
            self.state = worst.state if worst else HealthState.OK
        return worst

    def _begin(self) -> None:
        entropy, levels = self.policy.min_entropy, self._levels()
        runs = [repetition_cutoff(entropy, bits) for bits in levels]
        self._run_cutoffs = runs[0], runs[1]
        counts = [proportion_cutoff(entropy, bits) for bits in levels]
        self._count_cutoffs = counts[0], counts[1]
        self._runs = RepetitionCount(most=runs[1])
        self._proportion = AdaptiveProportion()
        self._recent: deque[bool] = deque(maxlen=self.policy.among)

    def _levels(self) -> tuple[int, int]:
        return self.policy.suspect_bits, self.policy.failed_bits

    def _planes_of(self, samples: npt.NDArray[np.uint8]) -> Reading:
        off = float(np.abs(bit_plane_shares(samples) - 0.5).max())
        errors = self.policy.suspect_errors, self.policy.failed_errors
        suspect, failed = (plane_tolerance(len(samples), each) for each in errors)
        return Reading("bit_planes", off, suspect, failed)

    def _differences_of(self, samples: npt.NDArray[np.uint8]) -> Reading:
        n, entropy = len(samples) - 1, self.policy.min_entropy
        suspect, failed = (most_frequent_cutoff(n, entropy, bits) for bits in self._levels())
        return Reading("differences", most_frequent_difference(samples), suspect, failed)

    def _weighed(self, alarm: Alarm | None) -> Alarm | None:
        """Returns *alarm*, or one that says that there were too many of its kind."""
        self._recent.append(alarm is not None)
        if alarm is None or alarm.state is HealthState.FAILED:
            return alarm
        suspect, most = sum(self._recent), self.policy.most_suspect
        if suspect < most:
            return alarm
        return Alarm("suspect_draws", suspect, most, HealthState.FAILED)
