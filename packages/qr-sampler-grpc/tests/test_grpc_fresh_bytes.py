# SPDX-License-Identifier: Apache-2.0
"""No byte that a server of the kit sends was made before the request, in any mode.

A generator that never stops writes into a serial port, a FIFO or a socket. The device of the serial
port is the class that the guide in the repository's README puts into the template of a server.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import EntropySource
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.testing import StampedWriter
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.direct.server import serve_direct
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource

README = Path(__file__).resolve().parents[3] / "README.md"
LIMIT = "time.monotonic() + 2.0"
OPTIONS: dict[str, Any] = {
    "timeout_ms": 60_000.0,
    "breaker": BreakerOptions.checked(enabled=False),
}

pytestmark = pytest.mark.skipif(not README.exists(), reason="the guide is not in the archive")


class EmptiedReader:
    """Reads empty what cannot be flushed, then reads, as the template of a server asks for."""

    def __init__(self, descriptor: int) -> None:
        self._file = descriptor
        self.drops = True

    def measure(self, count: int) -> bytes:
        with suppress(BlockingIOError):
            while self.drops and os.read(self._file, 65_536):
                pass
        data, due_s = b"", time.monotonic() + 60.0
        while len(data) < count:
            try:
                data += os.read(self._file, count - len(data))
            except BlockingIOError:
                if time.monotonic() > due_s:
                    raise TimeoutError("the device is silent") from None
                time.sleep(0.0005)
        return data


def pty(folder: Path, cleanup: ExitStack) -> tuple[Any, Callable[[bytes], int]]:
    """The device of the guide, patient, on a terminal in the state in which Linux opens one."""
    (snippet,) = re.findall(
        r"<!-- template: Device -->\n```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL
    )
    namespace: dict[str, Any] = {}
    exec(snippet.replace(LIMIT, "time.monotonic() + 60.0"), namespace)
    master, slave = os.openpty()
    os.set_blocking(master, False)
    device = namespace["Device"](os.ttyname(slave))
    device.open()
    for close in (lambda: os.close(master), lambda: os.close(slave), device.close):
        cleanup.callback(close)
    return device, lambda piece: os.write(master, piece)


def fifo(folder: Path, cleanup: ExitStack) -> tuple[Any, Callable[[bytes], int]]:
    os.mkfifo(folder / "fifo")
    descriptor = os.open(folder / "fifo", os.O_RDWR | os.O_NONBLOCK)
    cleanup.callback(os.close, descriptor)
    return EmptiedReader(descriptor), lambda piece: os.write(descriptor, piece)


def stream_socket(folder: Path, cleanup: ExitStack) -> tuple[Any, Callable[[bytes], int]]:
    near, far = socket.socketpair()
    for end in (near, far):
        end.setblocking(False)
        cleanup.enter_context(end)
    return EmptiedReader(near.fileno()), far.send


KINDS = {"pty": pty, "fifo": fifo, "socket": stream_socket}


@pytest.fixture(params=KINDS)
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, StampedWriter]]:
    """A device, and the generator behind it at the 44 kB/s of a serial port."""
    with ExitStack() as cleanup:
        device, write = KINDS[request.param](tmp_path, cleanup)
        generator = StampedWriter(write)
        cleanup.callback(generator.stop)
        yield device, generator


def over_grpc(mode: str) -> Callable[..., Any]:
    return lambda address: QuantumGrpcSource(address, mode=mode, **OPTIONS)


CLIENTS: dict[str, tuple[Callable[..., Any], Callable[[str], EntropySource]]] = {
    "unary": (serve, over_grpc("unary")),
    "server_streaming": (serve, over_grpc("server_streaming")),
    "bidi_streaming": (serve, over_grpc("bidi_streaming")),
    "direct": (serve_direct, lambda address: DirectSource(address, **OPTIONS)),
}


@pytest.mark.slow
@pytest.mark.parametrize("transport", CLIENTS)
def test_no_byte_is_older_than_its_request(
    transport: str, port: tuple[Any, StampedWriter], socket_path: Path
) -> None:
    hardware, generator = port
    serving, client = CLIENTS[transport]
    with serving(Device(hardware.measure), f"unix://{socket_path}") as server:
        source = client(server.address)
        for _ in range(2):
            generator.await_bytes(9_000)
            draw = source.draw(1024)
            assert generator.stale_bytes(draw.data, draw.requested_ns) == 0
        source.close()


@pytest.mark.parametrize("transport", CLIENTS)
@pytest.mark.parametrize("port", ["fifo", "socket"], indirect=True)
def test_a_device_that_drops_nothing_is_noticed(
    transport: str, port: tuple[Any, StampedWriter], socket_path: Path
) -> None:
    """What the other test would find: all that such a device returns is old."""
    hardware, generator = port
    hardware.drops = False
    serving, client = CLIENTS[transport]
    with serving(Device(hardware.measure), f"unix://{socket_path}") as server:
        source = client(server.address)
        generator.await_bytes(9_000)
        draw = source.draw(1024)
        assert generator.stale_bytes(draw.data, draw.requested_ns) == 1024
        source.close()
