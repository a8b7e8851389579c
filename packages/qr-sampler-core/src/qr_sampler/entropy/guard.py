# SPDX-License-Identifier: Apache-2.0
"""Wraps a source that can fail in any way so that it fails in time and in one way only."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from qr_sampler.entropy.breaker import CircuitOpenError
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.entropy.caller_thread import TimedCall
from qr_sampler.entropy.draw import (
    DroppedBytes,
    EntropyDraw,
    Origin,
    SourceLimits,
    SourceStatus,
)
from qr_sampler.entropy.intake import FailedDraw, Intake
from qr_sampler.entropy.patience import Patience
from qr_sampler.entropy.row_context import RowContext
from qr_sampler.entropy.source import EntropySource
from qr_sampler.entropy.source_calls import SourceCalls
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.foreign import is_ours, plain_text, secret_texts, words_of
from qr_sampler.health import HealthOptions, HealthState, SourceHealth
from qr_sampler.health.watch import STARTUP_BYTES, HealthWatch
from qr_sampler.per_process import PerProcess

__all__ = ["GuardedSource"]

logger = logging.getLogger("qr_sampler.entropy")

SHORTEST_DEADLINE_MS: Final = 1000.0
"""Shortest time after which a draw is given up that cannot be cancelled. It keeps the source busy
until it ends, so being impatient wins nothing for the next draw."""

LARGEST_SHARE: Final = 0.1
"""Of what a source serves in a day or in a minute, a start-up test may take this much."""


class GuardedSource(EntropySource):
    r"""Draws from *source*, and is unavailable whenever it hangs, misbehaves or breaks.

    The engine waits for a draw, so nothing that a source does may keep it waiting or stop it. A
    draw that is not done in time has failed. Until the source returns from it, every further draw
    fails at once; what it then delivers is dropped and never serves a later draw. All that comes
    out is plain, of bounded size, and says whose it is: see :mod:`qr_sampler.entropy.intake`.

    A source is called from a thread of its own, so that one which hangs can be left behind. Only
    sources of this project are called directly if they say that they do not
    :attr:`~qr_sampler.EntropySource.blocks`: tests bind them to their time limits.

    A source that can wait is bounded by a :class:`~qr_sampler.entropy.patience.Patience`: a draw
    that takes much longer than the latest ones is given up, though not within a second, and a
    source that fails several times in a row is left alone for a while. Those that are called
    directly bound themselves.

    An answer has to carry the name of the source, so guard sources one by one, inside a fallback.

    A source that holds the interpreter lock, in compiled code that never releases it, stops every
    thread of the process; nothing in the process can bound that.

    Args:
        source: Where the bytes come from.
        timeout_ms: Longest time that a draw may take, greater than 0.
        on_dropped: Called with bytes that were drawn but not used, from any thread; must not
            fail.
        breaker: When a draw is given up and when the source is left alone; ``None`` for a source
            that is asked every time.
        health: How its bytes are tested before anybody sees them; ``None`` for untested ones.

    Raises:
        ValueError: When *timeout_ms* is not a positive number.

    Examples:
        >>> from qr_sampler.testing import ConstantEntropySource
        >>> GuardedSource(ConstantEntropySource(7), timeout_ms=1000).draw(2).data
        b'\x07\x07'
    """

    blocks = False

    def __init__(
        self,
        source: EntropySource,
        timeout_ms: float,
        on_dropped: Callable[[DroppedBytes], object] | None = None,
        breaker: BreakerOptions | None = None,
        health: HealthOptions | None = None,
    ) -> None:
        if not 0 < timeout_ms < math.inf:
            raise ValueError(f"timeout_ms={timeout_ms} must be a positive number")
        self.source = source
        self.jit_class = source.jit_class
        self.conditioning = plain_text(source.conditioning)
        origin: object = source.origin
        self.origin = origin if isinstance(origin, Origin) else Origin()
        self.commits = bool(source.commits)
        self.serves_rows = bool(source.serves_rows)
        self.integrates = bool(source.integrates)
        self.min_entropy_per_byte = source.min_entropy_per_byte
        self.is_ours = is_ours(source)
        """Whether the source belongs to this project."""
        self._name = plain_text(source.name)
        self._intake = Intake(self._name, self.origin, secret_texts(source.secrets))
        self._direct = self.is_ours and not source.blocks
        self._timeout_s = min(timeout_ms / 1000, threading.TIMEOUT_MAX)
        self._on_dropped = on_dropped
        self._breaker = breaker or BreakerOptions.checked(enabled=False)
        # What has been learnt about the source outlives the calls, which end when it is closed.
        self._patience = PerProcess(self._new_patience)
        self._calls = PerProcess(self._new_calls)
        self._health = health or HealthOptions(enabled=False)
        self._assumption = self._health.assumption(self)
        self._watch = PerProcess(self._new_watch)

    @property
    def name(self) -> str:
        """The name of the source."""
        return self._name

    @property
    def limits(self) -> SourceLimits:
        """The limits of the source."""
        return self._intake.limits(lambda: self.source.limits)

    @property
    def health(self) -> SourceHealth:
        """The health of the source in this process, as of now."""
        if (watch := self._watch.get()) is not None:
            return watch.health
        return SourceHealth(
            state=HealthState.UNTESTED,
            tested=self._assumption.tested,
            reason=self._assumption.reason,
        )

    def start_up(self) -> None:
        """Makes the first start-up test of the source; what it finds is its health.

        The first draw does so itself; called earlier, that draw need not wait for it. A test that
        has been begun is left to the draws, which wait for a source that is unavailable anyway.
        """
        watch = self._watch.get()
        if watch is not None and not (watch.ready or watch.begun):
            with suppress(EntropyUnavailableError):
                watch.admit(self._startup_bytes, self._drop)

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """The settings of the source, in plain values."""
        return self._intake.settings(lambda: self.source.recorded_settings)

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes; use :meth:`draw` to learn their origin."""
        return self.draw(n).data

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes, in time.

        Raises:
            EntropyUnavailableError: When the source has not delivered just that, for any reason.
            ValueError: When *n* is negative.
        """
        return self._checked(n, partial(self.source.draw, n))

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        """Returns *n* bytes, in time, as :meth:`draw` does.

        Raises:
            EntropyUnavailableError: When the source has not delivered just that, for any reason.
            ValueError: When *n* is negative.
        """
        return self._checked(n, partial(self.source.committed_draw, n, commitment))

    def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> EntropyDraw:
        """Returns the blocks of rows, in time, as :meth:`draw` does.

        Raises:
            EntropyUnavailableError: When the source has not delivered just that, for any reason.
            ValueError: When the sizes add up to a negative number.
        """
        return self._checked(sum(sizes), partial(self.source.draw_rows, contexts, sizes))

    def status(self) -> SourceStatus:
        """Returns the status of the source, or for how long it has hung or is being left alone."""
        reason = self._calls.get().overdue() or self._patience.get().refusal()
        if reason is not None:
            return SourceStatus(available=False, reason=reason)
        question = partial(self._intake.status, lambda: self.source.status())
        if self._direct:
            return question()
        try:
            return self._calls.get().status(question)
        except (TimeoutError, RuntimeError) as error:
            return SourceStatus(available=False, reason=f"its status is not available: {error}")

    def probe(self) -> SourceStatus:
        """Returns the result of the source's own probe, in time."""
        question = partial(self._intake.status, lambda: self.source.probe())
        if self._direct:
            return question()
        try:
            return self._calls.get().probe(question)
        except (TimeoutError, RuntimeError) as error:
            return SourceStatus(available=False, reason=str(error))

    def close(self) -> None:
        """Closes the source, in time; one that hangs is closed when it returns."""
        calls = self._calls.pop() or self._new_calls()
        if self._direct:
            self.source.close()
            return
        try:
            call = calls.close(self.source.close, self._close_late)
        except (TimeoutError, RuntimeError) as error:
            logger.warning("entropy source %r does not close: %s", self._name, error)
            return
        if call is None or call.error is None:
            return
        if isinstance(call.error, Exception):
            raise call.error
        # It would end the caller's program instead of the source.
        raise RuntimeError(f"entropy source {self._name!r}: {words_of(call.error)}")

    def _checked(self, n: int, question: Callable[[], object]) -> EntropyDraw:
        """Returns the draw that *question* asks the source for, if its bytes may be used."""
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        watch = self._watch.get()
        if watch is None:
            return self._whole(n, question)
        if not watch.ready:
            watch.admit(self._startup_bytes, self._drop, n)
        draw = self._whole(n, question)
        health = watch.judge(draw.data)
        if health is HealthState.FAILED:
            self._drop(n, watch.discard_reason)
            raise watch.refusal()
        return draw.judged(health)

    def _startup_bytes(self, n: int) -> bytes:
        return self._whole(n, partial(self.source.draw, n)).data

    def _whole(self, n: int, question: Callable[[], object]) -> EntropyDraw:
        """Returns the draw that *question* asks the source for, if it is one of *n* bytes."""
        try:
            if self._direct:
                draw = self._intake.draw(question, n)
            else:
                draw = self._calls.get().draw(n, partial(self._intake.draw, question, n))
        except (TimeoutError, RuntimeError, CircuitOpenError) as refusal:
            raise EntropyUnavailableError(self._name, str(refusal)) from None
        if isinstance(draw, FailedDraw):
            self._drop(draw.dropped_bytes, draw.dropped_because)
            raise EntropyUnavailableError(
                self._name,
                draw.reason,
                dropped_bytes=draw.dropped_bytes,
                retry_after_s=draw.retry_after_s,
            )
        if draw.dropped_bytes:
            self._drop(draw.dropped_bytes, "retried")
        return draw

    def _new_patience(self) -> Patience:
        return Patience(
            self._breaker,
            1000 * self._timeout_s,
            shortest_ms=SHORTEST_DEADLINE_MS,
            has_fallback=self.source.has_fallback,
        )

    def _new_watch(self) -> HealthWatch | None:
        assumption = self._assumption
        if assumption.policy is None:
            return None
        monitor = self._health.make_monitor(assumption.policy)
        exempt = self._exemption()
        return HealthWatch(
            self._name,
            monitor,
            tested=assumption.tested,
            exempt=exempt,
            patience_s=self._timeout_s,
        )

    def _exemption(self) -> str:
        """Returns why the source is spared start-up tests; empty if it is not."""
        if self.serves_rows:
            return "no start-up test: its bytes belong to certain rows"
        limits, most = self.limits, 1 / LARGEST_SHARE
        day = limits.max_bytes_per_day
        if day is not None and STARTUP_BYTES * most > day:
            return f"no start-up test: it serves only {day} bytes a day"
        requests = math.ceil(STARTUP_BYTES / (limits.max_bytes_per_request or STARTUP_BYTES))
        minute = limits.max_requests_per_minute
        if minute is not None and requests * most > minute:
            return f"no start-up test: it serves only {minute:g} requests a minute"
        return ""

    def _new_calls(self) -> SourceCalls:
        return SourceCalls(self._name, self._timeout_s, self._patience.get(), self._late)

    def _close_late(self) -> None:
        call = TimedCall(self.source.close).run()
        if call.error is not None:
            self._intake.defects.report(call.error)

    def _late(self, call: TimedCall) -> None:
        """Drops what *call* delivered after it was abandoned."""
        if isinstance(call.result, FailedDraw):
            self._drop(call.result.dropped_bytes, "late")
        elif isinstance(call.result, EntropyDraw):
            self._drop(len(call.result.data) + call.result.dropped_bytes, "late")
        elif call.error is not None:
            self._intake.defects.report(call.error)

    def _drop(self, count: int, reason: str) -> None:
        if count and self._on_dropped is not None:
            self._on_dropped(DroppedBytes(self._name, count, reason, time.time_ns()))
