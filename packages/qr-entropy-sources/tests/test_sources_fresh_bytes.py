# SPDX-License-Identifier: Apache-2.0
"""No byte that a draw returns was made before the draw, whatever the device is connected by.

The writer keeps writing between draws, so old bytes pile up in the terminal, FIFO or socket.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from qr_entropy_sources.byte_stream import ByteStream
from qr_entropy_sources.device_file import DeviceFileSource
from qr_sampler import JitClass
from qr_sampler.testing import StampedWriter

PATIENCE_MS: Final = 60_000
PILE_BYTES: Final = 9_000
"""Made between two draws: more than twice what a terminal queues."""
DRAW_BYTES: Final = 1_024

Write = Callable[[bytes], int]


def pty(folder: Path, cleanup: ExitStack) -> tuple[Path, Write]:
    """A terminal in the state in which the kernel opens one."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    cleanup.callback(os.close, slave)
    cleanup.callback(os.close, master)
    return Path(os.ttyname(slave)), lambda piece: os.write(master, piece)


def fifo(folder: Path, cleanup: ExitStack) -> tuple[Path, Write]:
    path = folder / "fifo"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    cleanup.callback(os.close, descriptor)
    return path, lambda piece: os.write(descriptor, piece)


def unix_socket(folder: Path, cleanup: ExitStack) -> tuple[Path, Write]:
    path = folder / "socket"
    listener = cleanup.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    clients: list[socket.socket] = []

    def write(piece: bytes) -> int:
        if not clients:
            clients.append(cleanup.enter_context(listener.accept()[0]))
            clients[0].setblocking(False)
        return clients[0].send(piece)

    return path, write


KINDS = {"pty": pty, "fifo": fifo, "socket": unix_socket}


class Connection(NamedTuple):
    """A path for a source, and the generator behind it at the 44 kB/s of a serial port."""

    path: Path
    generator: StampedWriter


@pytest.fixture(params=KINDS)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    with ExitStack() as cleanup:
        path, write = KINDS[request.param](tmp_path, cleanup)
        generator = StampedWriter(write, piece_bytes=44)
        cleanup.callback(generator.stop)
        yield Connection(path, generator)


def test_no_byte_is_older_than_its_draw(connection: Connection) -> None:
    source = DeviceFileSource(connection.path, timeout_ms=PATIENCE_MS)
    try:
        for _ in range(3):
            draw = source.draw(DRAW_BYTES)
            assert connection.generator.stale_bytes(draw.data, draw.requested_ns) == 0
            connection.generator.await_bytes(PILE_BYTES)
        assert source.jit_class is JitClass.FLUSHED
    finally:
        connection.generator.stop()
        source.close()


def test_a_reader_that_drops_nothing_is_noticed(connection: Connection) -> None:
    """What the other test would find: all that such a reader returns is old."""
    stream = ByteStream(connection.path)
    try:
        due_ns = time.monotonic_ns() + PATIENCE_MS * 1_000_000
        # What a terminal took while it was opened, it may still have edited as a line.
        stream.drop_what_waited(due_ns)
        stream.read(1, due_ns)
        connection.generator.await_bytes(PILE_BYTES)
        requested_ns = time.monotonic_ns()
        data = stream.read(DRAW_BYTES, due_ns)
        assert connection.generator.stale_bytes(data, requested_ns) == DRAW_BYTES
    finally:
        connection.generator.stop()
        stream.close()
