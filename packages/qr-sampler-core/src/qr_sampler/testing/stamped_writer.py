# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a generator that never stops, which knows when it made each of its bytes."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

__all__ = ["StampedWriter", "writers_of_pipes"]

_PATIENCE_S: Final = 60.0


class StampedWriter:
    """Writes random bytes at a steady pace, and tells how many bytes of a draw were old.

    A source is just in time if no byte that a draw returns was made before the draw began. Write
    into the far end of what the source reads, let old bytes pile up between two draws, and hold
    each draw against :meth:`stale_bytes`. What does not fit is lost, as in hardware.

    Args:
        write: Takes bytes, writes without waiting and returns how many of them it took; may raise
            :class:`BlockingIOError` for none.
        piece_bytes: How many bytes it makes at once; once a millisecond at most.

    Examples:
        >>> import os, time
        >>> reader, writer = os.pipe()
        >>> generator = StampedWriter(lambda piece: os.write(writer, piece))
        >>> generator.await_bytes(1000)
        >>> began_ns = time.monotonic_ns()
        >>> generator.stale_bytes(os.read(reader, 100), began_ns)
        100
        >>> generator.stop()
    """

    def __init__(self, write: Callable[[bytes], int], piece_bytes: int = 44) -> None:
        self._write = write
        self._piece_bytes = piece_bytes
        self._written = bytearray()
        self._starts: list[int] = []
        self._times_ns: list[int] = []
        self._made = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def await_bytes(self, count: int) -> None:
        """Returns when *count* more bytes have been made, taken or not."""
        goal = self._made + count
        _await(lambda: self._made >= goal, "the writer has ended")

    def stale_bytes(self, data: bytes, since_ns: int) -> int:
        """Returns how many bytes of *data* were made before *since_ns*.

        Args:
            data: Bytes that were read in one piece, enough of them to be found: 8 or more.
            since_ns: Reading of :func:`time.monotonic_ns`.

        Raises:
            AssertionError: When they were never written.
        """
        # What is delivered may be read before it is noted.
        _await(lambda: data in self._written, "these bytes were never written")
        offset = self._written.index(data)
        newer = bisect_right(self._times_ns, since_ns)
        first_new = self._starts[newer] if newer < len(self._starts) else len(self._written)
        return min(max(first_new - offset, 0), len(data))

    def stop(self) -> None:
        """Ends the writer; do so before the reader goes."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.001):
            piece, made_ns = os.urandom(self._piece_bytes), time.monotonic_ns()
            try:
                taken = self._write(piece)
            except BlockingIOError:
                taken = 0
            self._made += len(piece)
            if taken:
                self._starts.append(len(self._written))
                self._times_ns.append(made_ns)
                self._written += piece[:taken]


@contextmanager
def writers_of_pipes(directory: Path, *names: str) -> Iterator[dict[str, StampedWriter]]:
    """Yields stand-ins for generators behind named pipes, which it makes. POSIX systems only.

    Args:
        directory: Where the pipes are made.
        names: Their names.
    """
    with ExitStack() as cleanup:
        found = {}
        for name in names:
            os.mkfifo(directory / name)
            descriptor = os.open(directory / name, os.O_RDWR | os.O_NONBLOCK)
            cleanup.callback(os.close, descriptor)
            found[name] = StampedWriter(partial(os.write, descriptor))
            cleanup.callback(found[name].stop)
        yield found


def _await(condition: Callable[[], bool], otherwise: str) -> None:
    due_s = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > due_s:
            raise AssertionError(otherwise)
        time.sleep(0.001)
