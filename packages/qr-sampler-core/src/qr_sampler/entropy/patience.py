# SPDX-License-Identifier: Apache-2.0
"""How long to wait for a source, and when to leave it alone: breaker and deadline together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from qr_sampler.entropy.adaptive_deadline import AdaptiveDeadline
from qr_sampler.entropy.breaker import BreakerState, CircuitBreaker
from qr_sampler.entropy.breaker_settings import BreakerOptions

__all__ = ["AttemptFailure", "Patience"]

_NS_PER_MS: Final = 1_000_000

_Answer = TypeVar("_Answer")


class AttemptFailure(Exception):  # noqa: N818 - an outcome, not a fault
    """The source was asked and did not deliver.

    Args:
        reason: What happened and what to do.
        lapsed: Whether the time was used up.
        dropped_bytes: How many bytes arrived but were not used.
    """

    def __init__(self, reason: str, *, lapsed: bool = False, dropped_bytes: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lapsed = lapsed
        self.dropped_bytes = dropped_bytes


class Patience:
    """Bounds the draws of one process from one source by what it has learnt about it.

    A draw is given up after a deadline that is learnt from the latest draws of its size, and a
    source that fails several times in a row is left alone for a while. A draw that was given up
    counts with the time that it was allowed, so that a source that has become slower is waited for
    again.

    Threads may share an instance.

    Args:
        options: The rules.
        timeout_ms: Longest that a draw may take.
        shortest_ms: Shortest deadline that is learnt, whatever the options say.
        has_fallback: Whether another source takes over from this one.
    """

    def __init__(
        self,
        options: BreakerOptions,
        timeout_ms: float,
        *,
        shortest_ms: float = 0.0,
        has_fallback: bool = True,
    ) -> None:
        self._timeout_ms = timeout_ms
        rule = options.deadline_rule(timeout_ms, shortest_ms=shortest_ms, has_fallback=has_fallback)
        self._deadline = AdaptiveDeadline(rule)
        self._breaker = CircuitBreaker(
            options.failures_allowed,
            recovery_s=options.recovery_window_s,
            recovery_max_s=options.recovery_max_s,
        )

    @property
    def state(self) -> BreakerState:
        """What happens to the next draw."""
        return self._breaker.state

    def refusal(self) -> str | None:
        """Returns why the source is being left alone, ``None`` while it is not."""
        return self._breaker.refusal()

    def draw(
        self,
        payload_bytes: int,
        latest_ns: int,
        fetch: Callable[[int], _Answer],
        admit: Callable[[], None] | None = None,
    ) -> _Answer:
        """Returns what *fetch* returns, if the source may be asked.

        Args:
            payload_bytes: Size of the draw.
            latest_ns: ``time.monotonic_ns()`` that the draw may not exceed in any case.
            fetch: Asks the source until the ``time.monotonic_ns()`` that it is given.
            admit: Called first; what it raises says nothing about the source.

        Raises:
            CircuitOpenError: When the source is being left alone.
            AttemptFailure: When *fetch* has raised it.
        """
        epoch = self._breaker.enter()
        if admit is not None:
            try:
                admit()
            except BaseException:
                self._breaker.abandon(epoch)
                raise
        began_ns = time.monotonic_ns()
        allowed_ms = self._deadline.milliseconds(payload_bytes)
        if self._breaker.openings:
            allowed_ms = self._longer_ms(allowed_ms)
        allowed_ns = int(allowed_ms * _NS_PER_MS)
        until_ns = began_ns + allowed_ns
        try:
            answer = fetch(until_ns if until_ns < latest_ns else latest_ns)
        except AttemptFailure as failure:
            if failure.lapsed:
                # All that was allowed, even where the end of the draw cut it short: otherwise
                # a wait of next to nothing would pass for a fast answer.
                took_ns = max(allowed_ns, time.monotonic_ns() - began_ns)
                self._deadline.observe(payload_bytes, took_ns / _NS_PER_MS)
            self._breaker.fail(epoch, failure.reason)
            raise
        except BaseException:
            self._breaker.fail(epoch, "the draw was interrupted")
            raise
        self._deadline.observe(payload_bytes, (time.monotonic_ns() - began_ns) / _NS_PER_MS)
        self._breaker.succeed(epoch)
        return answer

    def _longer_ms(self, allowed_ms: float) -> float:
        # A source that has become slower needs more time than its past allows before it is found
        # alive.
        return min(allowed_ms * 2.0**self._breaker.openings, self._timeout_ms)
