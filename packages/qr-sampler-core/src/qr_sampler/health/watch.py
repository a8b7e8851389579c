# SPDX-License-Identifier: Apache-2.0
"""Decides whether the bytes of a source may be used: its start-up test, its draws, its recovery."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.foreign import DefectLog, words_of
from qr_sampler.health.monitor import HealthMonitor
from qr_sampler.health.policy import Alarm, HealthState
from qr_sampler.health.recovery import RecoveryPause
from qr_sampler.health.source_health import SourceHealth, Tested

__all__ = ["STARTUP_BYTES", "STARTUP_TEST", "HealthWatch"]

STARTUP_BYTES: Final = 1024
"""Samples of the start-up test (NIST SP 800-90B, section 4.3, requirement 10)."""

LEAST_PIECE: Final = 64
"""Bytes of a start-up test that a source is asked for at once at least."""

STARTUP_TEST: Final = "startup_test"
"""Why the bytes of a start-up test are dropped that has found nothing."""

REMEDY: Final = (
    "none of its bytes is used until it passes its start-up test; QR_HEALTH=false admits a control "
    "that is biased on purpose"
)


class HealthWatch:
    """Watches one source in one process. Threads may share an instance.

    A source begins with a start-up test, whose bytes decide nothing. A draw that contradicts what
    is assumed of the source is suspect and may be used; one that no good source delivers makes the
    source fail, and none of its bytes is used before it has passed another start-up test.

    Args:
        name: Name of the source.
        monitor: The tests.
        tested: What they look at.
        exempt: Why the source is spared start-up tests; empty if it is not. Such a source stays
            untested where nothing is found, and failed once it has.
        patience_s: Seconds that a draw may wait for a start-up test.
        clock: Seconds from any origin, never going back.
    """

    def __init__(
        self,
        name: str,
        monitor: HealthMonitor,
        *,
        tested: Tested = "output",
        exempt: str = "",
        patience_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready = bool(exempt)
        """Whether the next draw may be made without a start-up test before it."""
        self.begun = False
        """Whether a start-up test has been begun."""
        self._name = name
        self._monitor = monitor
        self._tested = tested
        self._exempt = exempt
        self._patience_s = patience_s
        self._clock = clock
        self._good = HealthState.UNTESTED if exempt else HealthState.OK
        """What a draw is that shows nothing."""
        self._defects = DefectLog(f"the health monitor of source {name!r}", "it may not fail")
        self._defect = ""
        self._suspicion: Alarm | None = None
        """What the latest draw was suspect for."""
        self._failure: Alarm | None = None
        self._alarms: Counter[str] = Counter()
        self._pause = RecoveryPause()
        self._collected = b""
        """Bytes of the start-up test that goes on."""
        self._slow = False
        """Whether the source has not delivered those of a start-up test at once."""
        self._lock = threading.Lock()
        """Held while bytes are judged."""
        self._turn = threading.Lock()
        """Held during a start-up test, which others wait for."""

    def admit(
        self,
        draw: Callable[[int], bytes],
        drop: Callable[[int, str], object],
        size: int = STARTUP_BYTES,
    ) -> None:
        """Returns when the next draw may be made, after a start-up test if one is due.

        A source that cannot deliver the bytes of the test at once is asked for them in pieces of
        the size of its draws, by one draw after the other where they take too long together.

        Args:
            draw: Returns so many bytes of the source, in time.
            drop: Called with the number of bytes of the test, and why they are dropped.
            size: Size of the next draw.

        Raises:
            EntropyUnavailableError: When the source has failed and its pause is not over, or fails
                the test, or cannot deliver the bytes for it, yet or at all.
        """
        if not self._turn.acquire(timeout=self._patience_s):
            raise EntropyUnavailableError(self._name, "its start-up test goes on")
        try:
            if self.ready:
                return
            if self._failure is not None and (self._exempt or self._pause.left_s(self._clock())):
                raise self.refusal()
            self.begun = True
            failure = self._tested_now(draw, drop, size)
        finally:
            self._turn.release()
        if failure is not None:
            raise self.refusal()

    def judge(self, data: bytes) -> HealthState:
        """Returns what the tests say of the bytes of a draw; those of a failed one are not used."""
        with self._lock:
            if self._failure is not None:
                return HealthState.FAILED
            alarm = self._observed(data)
            if alarm is not None and alarm.state is HealthState.FAILED:
                self._fail(alarm)
            self._suspicion = alarm
            if alarm is not None:
                return alarm.state
            return HealthState.UNTESTED if self._defect else self._good

    def refusal(self) -> EntropyUnavailableError:
        """Returns what to raise in place of bytes: the source has failed."""
        left_s = None if self._exempt else self._pause.left_s(self._clock())
        reason = f"{self.discard_reason}; {REMEDY}"
        return EntropyUnavailableError(self._name, reason, retry_after_s=left_s)

    @property
    def discard_reason(self) -> str:
        """Why bytes of the failed source are dropped."""
        failure = self._failure
        return "health: it has recovered" if failure is None else discard_reason(failure)

    @property
    def health(self) -> SourceHealth:
        """The health of the source, as of now."""
        with self._lock:
            state, reason = self._stated()
            failed = state is HealthState.FAILED and not self._exempt
            return SourceHealth(
                state=state,
                tested="nothing" if self._defect else self._tested,
                reason=reason,
                alarms=dict(self._alarms),
                retry_after_s=self._pause.left_s(self._clock()) if failed else None,
            )

    def _tested_now(
        self, draw: Callable[[int], bytes], drop: Callable[[int, str], object], size: int
    ) -> Alarm | None:
        """Returns what a start-up test has found whose bytes have arrived."""
        piece = max(size, LEAST_PIECE) if self._slow else STARTUP_BYTES
        began_s = latest_s = self._clock()
        while True:
            data = self._drawn(draw, min(piece, STARTUP_BYTES - len(self._collected)))
            self._collected += data
            if len(self._collected) >= STARTUP_BYTES:
                break
            drop(len(data), STARTUP_TEST)
            began_piece_s, latest_s = latest_s, self._clock()
            if 2 * latest_s - began_piece_s - began_s > self._patience_s:
                raise EntropyUnavailableError(
                    self._name,
                    f"its start-up test has {len(self._collected)} of {STARTUP_BYTES} bytes yet; a "
                    "longer QR_DRAW_TIMEOUT_MS lets draws wait for the rest",
                )
        failure = self._start_up(self._collected)
        self._collected = b""
        drop(len(data), STARTUP_TEST if failure is None else discard_reason(failure))
        return failure

    def _drawn(self, draw: Callable[[int], bytes], n: int) -> bytes:
        """Returns bytes of a start-up test."""
        try:
            return draw(n)
        except EntropyUnavailableError:
            self._slow = True
            if self._failure is not None:
                self._pause.begin(self._clock())
            raise

    def _stated(self) -> tuple[HealthState, str]:
        """Returns the state of the source, and why it is not ok."""
        if self._failure is not None:
            return HealthState.FAILED, str(self._failure)
        if self._defect:
            return HealthState.UNTESTED, f"its health tests have failed: {self._defect}"
        if not self.ready:
            return HealthState.UNTESTED, "no start-up test yet"
        if self._suspicion is not None:
            return HealthState.SUSPECT, str(self._suspicion)
        return self._good, self._exempt

    def _start_up(self, data: bytes) -> Alarm | None:
        """Returns what the start-up test has found, by which the source fails."""
        with self._lock:
            self._failure = self._suspicion = None
            self._monitor.restart()
            alarm = self._observed(data)
            if alarm is None:
                self.ready = True
            else:
                self._fail(alarm)
            return alarm

    def _observed(self, data: bytes) -> Alarm | None:
        """Returns what the tests find; nothing from the moment on at which they do not work."""
        if self._defect:
            return None
        try:
            alarm = self._monitor.observe(data)
        # Nothing may end a step. The bytes are untested then, and the records say so.
        except Exception as error:
            self._defect = words_of(error)
            self._defects.report(error)
            return None
        if alarm is not None:
            self._alarms[alarm.test] += 1
        return alarm

    def _fail(self, alarm: Alarm) -> None:
        self._failure, self.ready = alarm, False
        self._pause.begin(self._clock())


def discard_reason(alarm: Alarm) -> str:
    """Returns why bytes are dropped that have led to *alarm*, with its test, value and cut-off."""
    return f"health: {alarm.test} {alarm.value:g} >= {alarm.cutoff:g}"
