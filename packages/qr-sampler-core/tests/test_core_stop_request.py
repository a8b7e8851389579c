# SPDX-License-Identifier: Apache-2.0
"""A request to stop can be made wherever the main thread is interrupted."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from qr_sampler.stop_request import StopRequest

_DEADLOCK_S = 0.5


def _interrupted_at(place: int, waits: Callable[[], object], handler: Callable[[], object]) -> bool:
    """Calls *waits* with *handler* run before its instruction *place*, as signals are handled.

    Returns whether there is such an instruction.
    """
    left = place

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                handler()
                return None
        return trace

    sys.settrace(trace)
    try:
        waits()
    finally:
        sys.settrace(None)
    return left < 0


def _ends_at(place: int, event: Any) -> tuple[bool, bool]:
    """Returns whether a wait that is interrupted at *place* ends, and whether there was one."""
    came: list[bool] = []
    thread = threading.Thread(
        target=lambda: came.append(
            _interrupted_at(place, lambda: event.wait(1e-4), event.set) and event.is_set()
        ),
        daemon=True,
    )
    thread.start()
    thread.join(_DEADLOCK_S if isinstance(event, threading.Event) else 60)
    return bool(came), came == [True]


def test_it_may_be_made_at_every_instruction_of_a_wait() -> None:
    places = 0
    while True:
        ended, was_interrupted = _ends_at(places, StopRequest())
        assert ended
        if not was_interrupted:
            break
        places += 1
    assert places > 10


def test_an_event_may_not() -> None:
    # Why there is a class of our own: somewhere within the first 200 instructions it hangs.
    assert not all(_ends_at(place, threading.Event())[0] for place in range(5, 200, 5))


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_whoever_waits_learns_of_it(timeout_s: float | None) -> None:
    stop = StopRequest()
    told: list[bool] = []
    waiting = [
        threading.Thread(target=lambda: told.append(stop.wait(timeout_s)), daemon=True)
        for _ in range(3)
    ]
    for each in waiting:
        each.start()
    stop.set()
    stop.set()
    for each in waiting:
        each.join(60)
    assert told == [True] * 3
    assert stop.wait(0.0)


def test_a_wait_has_an_end() -> None:
    stop = StopRequest()
    begun = time.monotonic()
    assert not stop.wait(0.01)
    assert time.monotonic() - begun >= 0.009
    assert not stop.is_set()
