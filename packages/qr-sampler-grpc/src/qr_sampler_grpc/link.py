# SPDX-License-Identifier: Apache-2.0
"""One process's connection to a server, and what it has learnt about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from qr_sampler.entropy import SourceLimits, SourceStatus
from qr_sampler_grpc.adaptive_deadline import AdaptiveDeadline
from qr_sampler_grpc.breaker import BreakerState, CircuitBreaker, CircuitOpenError
from qr_sampler_grpc.breaker_settings import BreakerOptions
from qr_sampler_grpc.quota import Quota, QuotaExceededError

__all__ = ["EXHAUSTED_PAUSE_S", "Link", "LinkFailure", "Refused"]

EXHAUSTED_PAUSE_S: Final = 5.0
"""Pause before a server is asked again that has reached a limit: the statuses of the protocols do
not carry when it recovers, and quotas by the minute recover little by little."""
_NS_PER_MS: Final = 1_000_000
_UNTRIED: Final = SourceStatus(available=True, reason="not contacted yet")
_WORKING: Final = SourceStatus(available=True)

_Answers = TypeVar("_Answers")


class Refused(Exception):  # noqa: N818 - an outcome, not a fault
    """The server was not asked, and nothing was spent.

    Args:
        reason: Why not.
        retry_after_s: See :class:`~qr_sampler.errors.EntropyUnavailableError`.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class LinkFailure(Exception):  # noqa: N818 - an outcome, not a fault
    """The server was asked in vain.

    Args:
        reason: What happened and what to do.
        lapsed: Whether the time was used up.
        dropped_bytes: How many bytes arrived for nothing.
        retry_after_s: See :class:`~qr_sampler.errors.EntropyUnavailableError`.
    """

    def __init__(
        self,
        reason: str,
        *,
        lapsed: bool = False,
        dropped_bytes: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lapsed = lapsed
        self.dropped_bytes = dropped_bytes
        self.retry_after_s = retry_after_s


class Link:
    """Guards the draws of one process from one server: quota, circuit breaker and deadline.

    Threads may share an instance.

    Args:
        limits: What may be asked for.
        breaker: When a draw is given up, and when the server is left alone.
        timeout_ms: Longest that a draw may take.
    """

    def __init__(self, limits: SourceLimits, breaker: BreakerOptions, timeout_ms: float) -> None:
        self._quota = Quota(limits)
        self._timeout_ms = timeout_ms
        self._deadline = AdaptiveDeadline(breaker.deadline_rule(timeout_ms))
        self._breaker = CircuitBreaker(
            breaker.failures_allowed,
            recovery_s=breaker.recovery_window_s,
            recovery_max_s=breaker.recovery_max_s,
        )
        self._status = _UNTRIED

    @property
    def breaker_state(self) -> BreakerState:
        """What happens to the next draw."""
        return self._breaker.state

    def status(self) -> SourceStatus:
        """Returns how the latest draw ended."""
        return self._status

    def draw(
        self, sizes: Sequence[int], latest_ns: int, fetch: Callable[[int], _Answers]
    ) -> _Answers:
        """Returns what *fetch* returns, if the server may be asked.

        Args:
            sizes: The bytes of each request of the draw.
            latest_ns: ``time.monotonic_ns()`` that the draw may not exceed in any case.
            fetch: Asks the server until the ``time.monotonic_ns()`` that it is given.

        Raises:
            Refused: When the server may not be asked.
            LinkFailure: When *fetch* has raised it.
        """
        payload_bytes = sum(sizes)
        epoch = self._admitted(len(sizes), payload_bytes)
        began_ns = time.monotonic_ns()
        allowed_ms = self._deadline.milliseconds(payload_bytes)
        if self._breaker.openings:
            allowed_ms = self._patient_ms(allowed_ms)
        allowed_ns = int(allowed_ms * _NS_PER_MS)
        until_ns = began_ns + allowed_ns
        try:
            answers = fetch(until_ns if until_ns < latest_ns else latest_ns)
        except LinkFailure as failure:
            if failure.lapsed:
                # All that was allowed, even where the end of the draw cut it short: otherwise
                # a wait of next to nothing would pass for a fast answer.
                took_ns = max(allowed_ns, time.monotonic_ns() - began_ns)
                self._deadline.observe(payload_bytes, took_ns / _NS_PER_MS)
            self._breaker.fail(epoch, failure.reason)
            self._status = SourceStatus(available=False, reason=failure.reason)
            raise
        except BaseException:
            self._breaker.fail(epoch, "the draw was interrupted")
            raise
        self._deadline.observe(payload_bytes, (time.monotonic_ns() - began_ns) / _NS_PER_MS)
        self._breaker.succeed(epoch)
        self._status = _WORKING
        return answers

    def _admitted(self, requests: int, payload_bytes: int) -> int:
        """Returns what the end of the draw has to be reported to the breaker with."""
        try:
            epoch = self._breaker.enter()
        except CircuitOpenError as error:
            raise self._refused(str(error)) from None
        if not self._quota.is_limited:
            return epoch
        try:
            self._quota.spend(requests, payload_bytes)
        except QuotaExceededError as error:
            self._breaker.abandon(epoch)
            raise self._refused(str(error), error.wait_s) from None
        return epoch

    def _refused(self, reason: str, retry_after_s: float | None = None) -> Refused:
        self._status = SourceStatus(available=False, reason=reason)
        return Refused(reason, retry_after_s=retry_after_s)

    def _patient_ms(self, allowed_ms: float) -> float:
        # A server that has become slower needs more time than its past allows to be found alive.
        return min(allowed_ms * 2.0**self._breaker.openings, self._timeout_ms)
