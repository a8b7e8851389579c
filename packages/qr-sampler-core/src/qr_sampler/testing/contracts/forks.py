# SPDX-License-Identifier: Apache-2.0
"""What a call returns in a child of this process."""

from __future__ import annotations

import os
import select
import signal
import time
import warnings
from collections.abc import Callable

import pytest

from qr_sampler.errors import EntropyUnavailableError

__all__ = ["answer_of_a_fork"]

_ANSWER, _UNAVAILABLE, _ERROR = b"A", b"U", b"E"


def answer_of_a_fork(call: Callable[[], bytes], patience_s: float) -> bytes | None:
    """Returns what *call* returns in a forked process; ``None`` for unavailable entropy.

    The test fails when it raises anything else, or does not end in time.

    Args:
        call: Takes no arguments.
        patience_s: Longest duration in seconds.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Threads of the test are lost in the child, which needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _answer(call, writer)
    os.close(writer)
    try:
        told = _read(reader, time.monotonic() + patience_s)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if told is None:
        pytest.fail(f"in a forked process the call has not ended after {patience_s:g} s")
    kind, content = told[:1], told[1:]
    if kind == _ERROR or not kind:
        pytest.fail(f"in a forked process: {content.decode('utf-8', 'replace') or 'it died'}")
    return content if kind == _ANSWER else None


def _answer(call: Callable[[], bytes], writer: int) -> None:
    """Writes what *call* returns or raises, and ends this process without any cleanup."""
    try:
        told = _ANSWER + call()
    except EntropyUnavailableError:
        told = _UNAVAILABLE
    # The parent reports it.
    except BaseException as error:
        told = _ERROR + f"{type(error).__name__}: {error}".encode("utf-8", "replace")
    try:
        os.write(writer, told)
    finally:
        os._exit(0)


def _read(reader: int, due_s: float) -> bytes | None:
    """Returns all that comes before the end of the pipe; ``None`` when that does not come."""
    told = b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(due_s - time.monotonic(), 0.0))
        if not ready:
            return None
        piece = os.read(reader, 65_536)
        if not piece:
            return told
        told += piece
