# SPDX-License-Identifier: Apache-2.0
"""One process's connection to a server, and what it has learnt about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from qr_sampler.entropy import SourceLimits, SourceStatus
from qr_sampler.entropy.breaker import CircuitOpenError
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.entropy.patience import AttemptFailure, Patience
from qr_sampler_grpc.link.quota import Quota, QuotaExceededError

__all__ = ["EXHAUSTED_PAUSE_S", "Link", "LinkFailure", "Refused"]

EXHAUSTED_PAUSE_S: Final = 5.0
"""Pause before a server is asked again that has reached a limit: the protocols' statuses do not say
when it recovers, and quotas by the minute recover little by little."""
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


class LinkFailure(AttemptFailure):
    """The server was asked and did not deliver.

    Args:
        reason: What happened and what to do.
        lapsed: Whether the time was used up.
        dropped_bytes: How many bytes arrived but were not used.
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
        super().__init__(reason, lapsed=lapsed, dropped_bytes=dropped_bytes)
        self.retry_after_s = retry_after_s


class Link:
    """Guards the draws of one process from one server: quota, circuit breaker and deadline.

    Threads may share an instance.

    Args:
        limits: What may be asked for.
        breaker: When a draw is given up, and when the server is left alone.
        timeout_ms: Longest that a draw may take.
        has_fallback: Whether another source takes over from this one.
    """

    def __init__(
        self,
        limits: SourceLimits,
        breaker: BreakerOptions,
        timeout_ms: float,
        *,
        has_fallback: bool = True,
    ) -> None:
        self._quota = Quota(limits)
        self._patience = Patience(breaker, timeout_ms, has_fallback=has_fallback)
        self._status = _UNTRIED

    def status(self) -> SourceStatus:
        """Returns how the latest draw ended, or for how long the server is left alone."""
        refusal = self._patience.refusal()
        return self._status if refusal is None else SourceStatus(available=False, reason=refusal)

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
        admit = (
            partial(self._quota.spend, len(sizes), payload_bytes)
            if self._quota.is_limited
            else None
        )
        try:
            answers = self._patience.draw(payload_bytes, latest_ns, fetch, admit)
        except CircuitOpenError as error:
            raise self._refused(str(error)) from None
        except QuotaExceededError as error:
            raise self._refused(str(error), error.wait_s) from None
        except LinkFailure as failure:
            self._status = SourceStatus(available=False, reason=failure.reason)
            raise
        self._status = _WORKING
        return answers

    def _refused(self, reason: str, retry_after_s: float | None = None) -> Refused:
        self._status = SourceStatus(available=False, reason=reason)
        return Refused(reason, retry_after_s=retry_after_s)
