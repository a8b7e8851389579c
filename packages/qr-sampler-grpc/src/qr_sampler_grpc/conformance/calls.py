# SPDX-License-Identifier: Apache-2.0
"""Makes the calls of a conformance case and keeps the raw answers."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import grpc

from qr_sampler_grpc.conformance.cases import CaseCall

__all__ = ["Exchange", "exchange", "wall_anchor_ns"]


def wall_anchor_ns() -> int:
    """Returns how far the wall clock is ahead of the monotonic one, in nanoseconds.

    Times of one run are compared, so a step of the wall clock must not come between them.
    """
    readings = []
    for _ in range(16):
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, wall - (before + after) // 2))
    # The process may have been interrupted within a reading; the quickest is the best.
    return min(readings)[1]


_WALL_ANCHOR_NS: Final = wall_anchor_ns()

_MOST_MESSAGES: Final = 1000
"""A server that never stops sending must not fill the memory."""

Metadata = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Exchange:
    """A finished call."""

    call: CaseCall
    """What was called."""
    sent_ns: int
    """Before the call: nanoseconds since the epoch on this machine's clock."""
    received_ns: int = 0
    """After it."""
    messages: list[bytes] = field(default_factory=list)
    """What came back, as serialised messages."""
    status: str = "OK"
    """Name of the status that ended it."""
    details: str = ""
    """The server's explanation of the status."""


def exchange(
    channel: grpc.Channel, call: CaseCall, path: str, metadata: Metadata, timeout_s: float
) -> Exchange:
    """Makes *call* and returns how it went, however it ended.

    Args:
        channel: Connection to the server.
        call: What to send.
        path: The method to send it to.
        metadata: Metadata sent with the call.
        timeout_s: Longest that the call may take, in seconds.
    """
    done = Exchange(call, sent_ns=_now_ns())
    talk = _ask_once if call.kind == "unary" else _converse
    try:
        talk(channel, done, path, {"metadata": tuple(metadata), "timeout": timeout_s})
    except grpc.RpcError as error:
        done.status, done.details = error.code().name, error.details() or ""
    done.received_ns = _now_ns()
    return done


def _now_ns() -> int:
    return time.monotonic_ns() + _WALL_ANCHOR_NS


def _ask_once(channel: grpc.Channel, done: Exchange, path: str, options: dict[str, Any]) -> None:
    method: Callable[..., bytes] = channel.unary_unary(path)
    done.messages.append(method(done.call.requests[0].message, **options))


def _converse(channel: grpc.Channel, done: Exchange, path: str, options: dict[str, Any]) -> None:
    outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    method: Callable[..., Any] = channel.stream_stream(path)
    answers = method(iter(outgoing.get, None), **options)
    try:
        for request in done.call.requests:
            outgoing.put(request.message)
            if done.call.wait_for_answers:
                message = next(answers, None)
                if message is None:
                    break
                done.messages.append(message)
    finally:
        # The thread that reads the requests ends with them.
        outgoing.put(None)
    done.messages.extend(islice(answers, _MOST_MESSAGES))
    # One that has ended is not affected.
    answers.cancel()
