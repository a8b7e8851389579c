# SPDX-License-Identifier: Apache-2.0
"""A source that can fail in any way, made one that fails in time and in one way only."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from qr_sampler.entropy.caller import Call, Caller
from qr_sampler.entropy.draw import EntropyDraw, SourceLimits, SourceStatus
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError

__all__ = ["DroppedBytes", "GuardedSource"]

logger = logging.getLogger("qr_sampler.entropy")


@dataclass(frozen=True, slots=True)
class DroppedBytes:
    """Bytes that a source delivered and that decided nothing."""

    source: str
    """Name of the source."""
    count: int
    """How many."""
    reason: str
    """Why they were dropped: the answer was ``"late"``, ``"short"`` or ``"long"``, another part of
    the draw ``"failed"``, or an attempt at it was lost and ``"retried"``."""
    wall_time_ns: int
    """``time.time_ns()`` when they were."""


class GuardedSource(EntropySource):
    r"""Draws from *source*, and is unavailable whenever that hangs, misbehaves or breaks.

    The engine waits for a draw, so nothing that a source does may keep it waiting or stop it. A
    draw that is not done in time has failed. Until the source returns from it, every further draw
    fails at once; what it then delivers is dropped and never serves a later draw.

    A source that :attr:`~qr_sampler.EntropySource.blocks` is called from a thread of its own. Any
    other one keeps a time limit by itself and is called directly.

    Args:
        source: Where the bytes come from.
        timeout_ms: Longest time that a draw may take, greater than 0.
        on_dropped: Is told of bytes that were delivered for nothing, from any thread. It must not
            fail.

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
    ) -> None:
        if not 0 < timeout_ms < math.inf:
            raise ValueError(f"timeout_ms={timeout_ms} must be a positive number")
        self.source = source
        self.jit_class = source.jit_class
        self.conditioning = source.conditioning
        self.origin = source.origin
        self.commits = source.commits
        self.integrates = source.integrates
        self._timeout_s = min(timeout_ms / 1000, threading.TIMEOUT_MAX)
        self._on_dropped = on_dropped
        # Keyed by process and filled with setdefault, which is atomic: a forked child has neither
        # the thread nor the lock that another thread may have held.
        self._callers: dict[int, Caller] = {}
        self._reported: set[type[BaseException]] = set()

    @property
    def name(self) -> str:
        """The name of the source."""
        return self.source.name

    @property
    def limits(self) -> SourceLimits:
        """The limits of the source."""
        return self.source.limits

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes; use :meth:`draw` to learn where from."""
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

    def _checked(self, n: int, question: Callable[[], object]) -> EntropyDraw:
        """Returns the draw that *question* asks the source for, if it is one of *n* bytes."""
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        draw = self._answer(question)
        if not isinstance(draw, EntropyDraw) or not isinstance(draw.data, bytes):
            what = draw.data if isinstance(draw, EntropyDraw) else draw
            raise self._unavailable(f"answered with {type(what).__name__} instead of bytes")
        received = len(draw.data)
        if received != n:
            self._drop(received, "short" if received < n else "long")
            raise self._unavailable(f"asked for {n} bytes, received {received}; they were dropped")
        self._drop(draw.dropped_bytes, "retried")
        return draw

    def status(self) -> SourceStatus:
        """Returns the status of the source, or for how long it has been hanging."""
        reason = self._caller().overdue()
        if reason is not None:
            return SourceStatus(available=False, reason=reason)
        return self.source.status()

    def probe(self) -> SourceStatus:
        """Returns what the source's own probe says, in time."""
        try:
            status = self._answer(self.source.probe)
        except EntropyUnavailableError as error:
            return SourceStatus(available=False, reason=error.reason)
        if isinstance(status, SourceStatus):
            return status
        reason = f"its probe answered with {type(status).__name__} instead of a status"
        return SourceStatus(available=False, reason=reason)

    def close(self) -> None:
        """Closes the source, in time; one that hangs is closed when it returns."""
        caller = self._caller()
        self._callers.pop(os.getpid(), None)
        if not self.source.blocks:
            self.source.close()
        elif caller.overdue() is not None:
            caller.stop(last=self._close_late)
        else:
            self._close_in_time(caller)

    def _close_in_time(self, caller: Caller) -> None:
        try:
            call = caller.make_last(self.source.close, self._timeout_s)
        except (TimeoutError, RuntimeError) as error:
            logger.warning("entropy source %r does not close: %s", self.name, error)
            return
        if call.error is not None:
            raise call.error

    def _close_late(self) -> None:
        call = Call(self.source.close).run()
        if call.error is not None:
            self._report(call.error)

    def _caller(self) -> Caller:
        """Returns what calls the source in this process."""
        pid = os.getpid()
        caller = self._callers.get(pid)
        if caller is None:
            fresh = Caller(f"qr-sampler-{self.name}", self._late)
            caller = self._callers.setdefault(pid, fresh)
        return caller

    def _answer(self, question: Callable[[], object]) -> object:
        """Returns what *question* does; all that goes wrong becomes unavailability.

        Args:
            question: A call of the source.
        """
        try:
            call = self._made(question)
        except (TimeoutError, RuntimeError) as refusal:
            raise self._unavailable(str(refusal)) from None
        error = call.error
        if error is None:
            return call.result
        if isinstance(error, EntropyUnavailableError):
            self._drop(error.dropped_bytes, "failed")
            raise error
        # An interrupt or an exit is not a failure of the source.
        if not isinstance(error, Exception):
            raise error
        # Whatever else a source raises, the draw has failed and the engine has to go on: the
        # defect is logged, and the records of the tokens give it as the reason.
        self._report(error)
        raise self._unavailable(_in_words(error)) from error

    def _made(self, question: Callable[[], object]) -> Call:
        if not self.source.blocks:
            return Call(question).run()
        return self._caller().make(question, self._timeout_s)

    def _late(self, call: Call) -> None:
        """Drops what *call* has delivered, because nobody waits for it any more."""
        if isinstance(call.error, EntropyUnavailableError):
            self._drop(call.error.dropped_bytes, "late")
        elif call.error is not None:
            self._report(call.error)
        elif isinstance(call.result, EntropyDraw) and isinstance(call.result.data, bytes):
            self._drop(len(call.result.data), "late")

    def _drop(self, count: int, reason: str) -> None:
        if count and self._on_dropped is not None:
            self._on_dropped(DroppedBytes(self.name, count, reason, time.time_ns()))

    def _report(self, error: BaseException) -> None:
        """Says once for each kind of error what only the author of the source can mend."""
        if type(error) not in self._reported:
            self._reported.add(type(error))
            logger.error(
                "entropy source %r has a defect: it may raise nothing but EntropyUnavailableError",
                self.name,
                exc_info=error,
            )

    def _unavailable(self, reason: str) -> EntropyUnavailableError:
        return EntropyUnavailableError(self.name, reason)


def _in_words(error: Exception) -> str:
    """Returns the type of *error* and what it says, if it can say it."""
    try:
        said = str(error)
    # The author of the source wrote the exception, too.
    except Exception as second:
        said = f"its text could not be had ({type(second).__name__})"
    return f"{type(error).__name__}: {said}"
