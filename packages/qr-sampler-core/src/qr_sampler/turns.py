# SPDX-License-Identifier: Apache-2.0
"""Waiting for one's turn with a device, for no longer than a draw may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["held"]


@contextmanager
def held(
    lock: threading.Lock, deadline_ns: int, refusal: Callable[[], Exception]
) -> Iterator[None]:
    """Holds *lock* in its block.

    Args:
        lock: The lock of the device.
        deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.
        refusal: Makes the error that is raised when others have it until then.
    """
    if not lock.acquire(timeout=max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)):
        raise refusal()
    try:
        yield
    finally:
        lock.release()
