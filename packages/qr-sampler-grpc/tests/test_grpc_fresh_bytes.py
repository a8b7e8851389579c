# SPDX-License-Identifier: Apache-2.0
"""No byte that a server of the kit sends was made before the request, in any mode.

The device is the class that the guide in the repository's README puts into the template of a
server, in front of a serial port on which a generator never stops.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
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


@pytest.fixture
def port() -> Iterator[tuple[Any, StampedWriter]]:
    """The device of the guide, patient, on a terminal with a generator behind it."""
    (snippet,) = re.findall(
        r"<!-- template: Device -->\n```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL
    )
    namespace: dict[str, Any] = {}
    exec(snippet.replace(LIMIT, "time.monotonic() + 60.0"), namespace)
    master, slave = os.openpty()
    os.set_blocking(master, False)
    device = namespace["Device"](os.ttyname(slave))
    device.open()
    generator = StampedWriter(lambda piece: os.write(master, piece))
    yield device, generator
    generator.stop()
    device.close()
    os.close(slave)
    os.close(master)


def over_grpc(mode: str) -> Callable[..., Any]:
    return lambda address: QuantumGrpcSource(address, mode=mode, **OPTIONS)


CLIENTS: dict[str, tuple[Callable[..., Any], Callable[[str], EntropySource]]] = {
    "unary": (serve, over_grpc("unary")),
    "server_streaming": (serve, over_grpc("server_streaming")),
    "bidi_streaming": (serve, over_grpc("bidi_streaming")),
    "direct": (serve_direct, lambda address: DirectSource(address, **OPTIONS)),
}


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
