# SPDX-License-Identifier: Apache-2.0
"""Turns the answers of a source into plain values, or refuses them.

Whatever a source hands out is looked at here and nowhere behind: types, lengths, ranges, the name
that it claims, and the errors that it raises. What only the caller knows for certain, where a
component came from and when it was called, is never taken from an answer that contradicts it.
"""

from __future__ import annotations

import math
import operator
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from qr_sampler.entropy.draw import EntropyDraw, Origin, SourceLimits, SourceStatus
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.foreign import (
    LARGEST_NUMBER,
    DefectLog,
    is_signal,
    plain_settings,
    plain_text,
    words_of,
)
from qr_sampler.health import HealthState

__all__ = ["FailedDraw", "Intake"]

LONGEST_SIGNATURE: Final = 512
"""Number of bytes of the longest signature that is kept: those of RSA-4096 have as many."""


@dataclass(frozen=True, slots=True)
class FailedDraw:
    """A draw that has failed."""

    reason: str
    """Why, in plain words."""
    dropped_bytes: int = 0
    """Number of bytes that were delivered but not used."""
    dropped_because: str = "failed"
    """Why those were dropped, as in :class:`~qr_sampler.DroppedBytes`."""
    retry_after_s: float | None = None
    """Seconds after which asking again is worthwhile, as in
    :class:`~qr_sampler.errors.EntropyUnavailableError`."""


class Intake:
    """Calls one source; returns plain values of bounded size whatever it answers or raises.

    Its methods raise nothing but what a signal to the process raises. They may take as long as the
    source does, so callers that cannot wait use another thread.

    Args:
        name: Name of the source. No answer may claim another one than that or that of its kind.
        origin: Distribution that the source was loaded from.
        secrets: Texts that are masked in everything the source reports.
    """

    def __init__(self, name: str, origin: Origin, secrets: tuple[str, ...]) -> None:
        self._name = name
        self._origin = origin
        self._secrets = secrets
        promise = "it may raise nothing but EntropyUnavailableError"
        self.defects = DefectLog(f"entropy source {name!r}", promise, secrets)
        """Logs everything else it raises."""

    def draw(self, question: Callable[[], object], n: int) -> EntropyDraw | FailedDraw:
        """Returns the draw of *n* bytes that *question* asks for.

        Args:
            question: A call of the source.
            n: Number of bytes.
        """
        asked_ns = time.monotonic_ns()
        try:
            answer = question()
            answered_ns = time.monotonic_ns()
            if self._is_plain(answer, n, asked_ns, answered_ns):
                return cast("EntropyDraw", answer)
            return self._read(answer, n, asked_ns, answered_ns)
        # Whatever a source raises means that the draw has failed. The engine has to continue,
        # even if the source raises what would end a program or a thread.
        except BaseException as error:
            if is_signal(error):
                raise
            return self._failure(error)

    def status(self, question: Callable[[], object]) -> SourceStatus:
        """Returns the status that *question* asks for."""
        try:
            answer = question()
            if isinstance(answer, SourceStatus):
                return SourceStatus(
                    available=bool(answer.available), reason=self._text(answer.reason)
                )
            kind = self._text(type(answer).__name__)
            return SourceStatus(available=False, reason=f"answered with {kind} instead of a status")
        except BaseException as error:
            if is_signal(error):
                raise
            return SourceStatus(available=False, reason=self._failure(error).reason)

    def limits(self, question: Callable[[], object]) -> SourceLimits:
        """Returns the limits that *question* asks for; those that are no numbers do not count."""
        try:
            answer = question()
            if isinstance(answer, SourceLimits):
                return SourceLimits(
                    max_bytes_per_request=_number(answer.max_bytes_per_request, least=1),
                    max_requests_per_minute=_positive(answer.max_requests_per_minute),
                    max_bytes_per_day=_number(answer.max_bytes_per_day, least=1),
                )
        except BaseException as error:
            if is_signal(error):
                raise
            self.defects.report(error)
        return SourceLimits()

    def settings(self, question: Callable[[], object]) -> dict[str, object]:
        """Returns the settings that *question* asks for, as plain values of bounded size."""
        try:
            return plain_settings(question(), self._secrets)
        except BaseException as error:
            if is_signal(error):
                raise
            self.defects.report(error)
        return {}

    def _failure(self, error: BaseException) -> FailedDraw:
        if isinstance(error, EntropyUnavailableError):
            try:
                reason = self._text(error.reason) or "it does not say why"
                return FailedDraw(
                    reason,
                    _number(error.dropped_bytes) or 0,
                    retry_after_s=_positive(error.retry_after_s, most=math.inf),
                )
            # A subclass may answer for itself.
            except BaseException as second:
                if is_signal(second):
                    raise
                error = second
        self.defects.report(error)
        return FailedDraw(words_of(error, self._secrets))

    def _read(
        self, answer: object, n: int, asked_ns: int, answered_ns: int
    ) -> EntropyDraw | FailedDraw:
        """Returns a plain copy of *answer* if it can be read."""
        data = answer.data if isinstance(answer, EntropyDraw) else answer
        if not isinstance(answer, EntropyDraw) or not isinstance(
            data, (bytes, bytearray, memoryview)
        ):
            kind = self._text(type(data).__name__)
            return FailedDraw(f"answered with {kind} instead of bytes")
        received = len(data) if type(data) is bytes else memoryview(data).nbytes
        if received != n:
            return FailedDraw(
                f"asked for {n} bytes, received {received}; they were dropped",
                received + (_number(answer.dropped_bytes) or 0),
                "short" if received < n else "long",
            )
        return self._plain(answer, data, asked_ns, answered_ns)

    def _is_plain(self, answer: Any, n: int, asked_ns: int, answered_ns: int) -> bool:
        """Returns whether *answer* can be kept as it is: the common case, in a microsecond."""
        return (
            type(answer) is EntropyDraw
            and type(answer.data) is bytes
            and len(answer.data) == n
            and type(answer.source) is str
            and answer.source == self._name
            and answer.origin is self._origin
            and type(answer.requested_ns) is int
            and type(answer.received_ns) is int
            and asked_ns <= answer.requested_ns <= answer.received_ns <= answered_ns
            and type(answer.wall_time_ns) is int
            and 0 < answer.wall_time_ns <= LARGEST_NUMBER
            and answer.fallback is False
            and answer.health is HealthState.UNTESTED
            and type(answer.requests) is int
            and 0 <= answer.requests <= LARGEST_NUMBER
            and type(answer.dropped_bytes) is int
            and 0 <= answer.dropped_bytes <= LARGEST_NUMBER
            and type(answer.fallback_from) is type(answer.fallback_reason) is str
            and type(answer.device_id) is str
            and (
                not (answer.fallback_from or answer.fallback_reason or answer.device_id)
                or self._are_plain_texts(answer)
            )
            and (answer.device_timestamp_ns is None or _is_number(answer.device_timestamp_ns, 1))
            and (answer.commitment_echoed is None or _is_flag(answer.commitment_echoed))
            and (answer.signature_verified is None or _is_flag(answer.signature_verified))
            and _is_signature(answer.signature)
            and (answer.sequence_id is None or _is_number(answer.sequence_id, 0))
        )

    def _plain(
        self, answer: EntropyDraw, data: Any, asked_ns: int, answered_ns: int
    ) -> EntropyDraw | FailedDraw:
        """Returns a copy of *answer* in plain values; unreadable values become unknown.

        Args:
            answer: The answer of the source.
            data: Its bytes, in any buffer.
            asked_ns: When the source was called.
            answered_ns: When it returned.
        """
        lost = _number(answer.dropped_bytes) or 0
        claimed = self._text(answer.source)
        # A source may write the name of its kind into its draws itself.
        if claimed not in (self._name, self._origin.kind or self._name):
            reason = f"it calls itself {claimed!r}; the answer was dropped"
            return FailedDraw(reason, memoryview(data).nbytes + lost, "unfit")
        requested_ns, received_ns = _number(answer.requested_ns), _number(answer.received_ns)
        if (
            requested_ns is None
            or received_ns is None
            or not asked_ns <= requested_ns <= received_ns <= answered_ns
        ):
            requested_ns, received_ns = asked_ns, answered_ns
        requests = _number(answer.requests)
        return EntropyDraw(
            data=bytes(memoryview(data)),
            source=self._name,
            origin=self._origin,
            requested_ns=requested_ns,
            received_ns=received_ns,
            wall_time_ns=_number(answer.wall_time_ns, least=1) or time.time_ns(),
            fallback=bool(answer.fallback),
            fallback_from=self._text(answer.fallback_from),
            fallback_reason=self._text(answer.fallback_reason),
            device_id=self._text(answer.device_id),
            device_timestamp_ns=_number(answer.device_timestamp_ns, least=1),
            requests=1 if requests is None else requests,
            commitment_echoed=_flag(answer.commitment_echoed),
            signature_verified=_flag(answer.signature_verified),
            dropped_bytes=lost,
            signature=answer.signature if _is_signature(answer.signature) else b"",
            sequence_id=_number(answer.sequence_id),
        )

    def _text(self, value: object) -> str:
        return plain_text(value, self._secrets)

    def _are_plain_texts(self, answer: EntropyDraw) -> bool:
        texts = (answer.fallback_from, answer.fallback_reason, answer.device_id)
        return all(self._text(text) == text for text in texts)


def _is_signature(value: object) -> bool:
    return type(value) is bytes and len(value) <= LONGEST_SIGNATURE


def _is_flag(value: object) -> bool:
    return value is True or value is False


def _is_number(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= LARGEST_NUMBER


def _number(value: Any, least: int = 0) -> int | None:
    """Returns *value* as an int if it is a whole number in range, else ``None``."""
    if isinstance(value, bool):
        return None
    try:
        number = int(operator.index(value))
    except TypeError:
        return None
    return number if least <= number <= LARGEST_NUMBER else None


def _positive(value: Any, most: float = sys.float_info.max) -> float | None:
    """Returns *value* as a float if it is a positive number, at most *most*, else ``None``."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0.0 < number <= most else None


def _flag(value: Any) -> bool | None:
    """Returns *value* as a bool, NumPy's included; ``None`` for everything else."""
    return bool(value) if isinstance(value, (bool, np.bool_)) else None
