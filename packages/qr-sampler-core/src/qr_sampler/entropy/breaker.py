# SPDX-License-Identifier: Apache-2.0
"""When to stop asking a source that fails, and when to try it again: a pure state machine.

The pattern is M. Nygard's circuit breaker (Release It!, 2007, chapter 5). No library has all that
is needed here: exactly one probe at a time, a pause that doubles, a clock that tests can turn, and
an end of a call that says nothing once the state has changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum

__all__ = ["BreakerState", "CircuitBreaker", "CircuitOpenError"]


class BreakerState(Enum):
    """What a circuit breaker does with the next call."""

    CLOSED = "closed"
    """Lets it through."""
    OPEN = "open"
    """Refuses it."""
    HALF_OPEN = "half_open"
    """A single probe is in progress and decides the next state; refuses all others."""


class CircuitOpenError(Exception):
    """The call was refused, because the latest ones failed; the message says for how long."""


class CircuitBreaker:
    """Lets calls through until several in a row have failed; then one probe after each pause.

    Threads may share an instance. Every :meth:`enter` that returns is followed by one call of
    :meth:`succeed`, :meth:`fail` or :meth:`abandon`, with what it has returned.

    Args:
        max_consecutive_failures: Failures in a row that open the circuit, at least 1.
        recovery_s: First pause before a probe, in seconds; doubles with each probe that fails.
        recovery_max_s: Longest pause in seconds, the first one included.
        clock: Monotonic seconds.

    Examples:
        >>> now = 0.0
        >>> breaker = CircuitBreaker(1, recovery_s=2.0, recovery_max_s=60.0, clock=lambda: now)
        >>> breaker.fail(breaker.enter(), "it is down")
        >>> breaker.state.value
        'open'
        >>> now = 2.0
        >>> breaker.succeed(breaker.enter())
        >>> breaker.state.value
        'closed'
    """

    def __init__(
        self,
        max_consecutive_failures: int = 3,
        *,
        recovery_s: float = 1.0,
        recovery_max_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_failures = max_consecutive_failures
        self._recovery_s = recovery_s
        self._recovery_max_s = recovery_max_s
        self._clock = clock
        self._lock = threading.Lock()
        self._state = BreakerState.CLOSED
        self._failures = 0
        self.openings = 0
        """How often the circuit has opened since it was last closed."""
        self._retry_at = 0.0
        self._reason = ""
        # Calls that began before the latest change of state say nothing about the new one.
        self._epoch = 0
        # The epoch while the circuit is closed and the latest call has not failed. A call that goes
        # well then changes nothing, and one look at this says so without the lock.
        self._quiet_epoch: int | None = 0

    @property
    def state(self) -> BreakerState:
        """What happens to the next call; an open circuit stays open until a call comes."""
        return self._state

    def refusal(self) -> str | None:
        """Returns why calls are refused, ``None`` while they are not; changes nothing."""
        with self._lock:
            if self._state is BreakerState.CLOSED:
                return None
            return f"{self._reason}; {self._prospect()}"

    def enter(self) -> int:
        """Lets a call through, and returns what its end has to be reported with.

        Raises:
            CircuitOpenError: When the call must not be made.
        """
        quiet_epoch = self._quiet_epoch
        if quiet_epoch is not None:
            return quiet_epoch
        with self._lock:
            if self._state is BreakerState.HALF_OPEN or self._wait_s() > 0:
                raise CircuitOpenError(f"{self._reason}; {self._prospect()}")
            if self._state is BreakerState.OPEN:
                self._change(BreakerState.HALF_OPEN)
            return self._epoch

    def succeed(self, epoch: int) -> None:
        """Notes that the call has got what it wanted."""
        if epoch == self._quiet_epoch:
            return
        with self._lock:
            if epoch != self._epoch:
                return
            self._failures = 0
            if self._state is BreakerState.HALF_OPEN:
                self._change(BreakerState.CLOSED)
                self.openings = 0
            if self._state is BreakerState.CLOSED:
                self._quiet_epoch = self._epoch

    def fail(self, epoch: int, reason: str) -> None:
        """Notes that the call has failed, and why."""
        with self._lock:
            if epoch != self._epoch:
                return
            self._quiet_epoch = None
            self._failures += 1
            if self._state is BreakerState.HALF_OPEN or self._failures >= self._max_failures:
                self._open(reason)

    def abandon(self, epoch: int) -> None:
        """Notes that the call was not made after all; the next one may be."""
        with self._lock:
            if epoch == self._epoch and self._state is BreakerState.HALF_OPEN:
                self._change(BreakerState.OPEN)

    def _wait_s(self) -> float:
        """Returns for how many seconds an open circuit stays so; nothing or less for any other."""
        return self._retry_at - self._clock() if self._state is BreakerState.OPEN else 0.0

    def _prospect(self) -> str:
        if self._state is BreakerState.HALF_OPEN:
            return "whether it has recovered is being tried"
        wait_s = self._wait_s()
        return f"not tried again for {wait_s:.1f} s" if wait_s > 0 else "the next draw tries it"

    def _open(self, reason: str) -> None:
        pause_s = min(self._recovery_s * 2.0**self.openings, self._recovery_max_s)
        self._retry_at = self._clock() + pause_s
        # The doubling is bounded, so that it stays a number.
        self.openings = min(self.openings + 1, 64)
        self._failures = 0
        self._reason = reason
        self._change(BreakerState.OPEN)

    def _change(self, state: BreakerState) -> None:
        self._state = state
        self._epoch += 1
