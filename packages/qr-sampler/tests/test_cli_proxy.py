# SPDX-License-Identifier: Apache-2.0
"""An entropy proxy on the same host: ``serve-entropy --source quantum_grpc --direct``, for real.

The server of the device is in this process and notes each request; the proxy has one of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from qr_sampler.entropy import EntropyDraw, EntropySource
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_cli.server_process import READY_PREFIX

pytest.importorskip("qr_sampler_grpc", reason="qr-sampler-grpc is an extra of this package")
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.server import serve

LONG_MS = 60_000.0


class NotingDevice(EntropySource):
    """A device that notes when it was asked for how much, and for which commitment."""

    commits = True

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, bytes]] = []
        self.fails = False

    @property
    def name(self) -> str:
        return "noting"

    def get_random_bytes(self, n: int) -> bytes:
        return self.committed_draw(n, b"").data

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        if self.fails:
            raise EntropyUnavailableError("noting", "the shutter is closed")
        self.asked.append((n, time.monotonic_ns(), commitment))
        data = len(self.asked).to_bytes(4, "big") * (n // 4)
        return EntropyDraw(
            data=data,
            source="noting",
            origin=self.origin,
            requested_ns=time.monotonic_ns(),
            received_ns=time.monotonic_ns(),
            wall_time_ns=time.time_ns(),
            device_id="serial 7",
            device_timestamp_ns=1_000 + len(self.asked),
        )

    def draw(self, n: int) -> EntropyDraw:
        return self.committed_draw(n, b"")


@contextmanager
def proxy(upstream: str, socket: Path) -> Iterator[subprocess.Popen[str]]:
    arguments = ("serve-entropy", "--source=quantum_grpc", f"--direct=unix://{socket}")
    environment = {
        **os.environ,
        "QR_GRPC_SERVER_ADDRESS": upstream,
        "QR_GRPC_TIMEOUT_MS": str(LONG_MS),
        "QR_CB_ENABLED": "false",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "qr_sampler_cli", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{READY_PREFIX}unix://{socket}\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="qr") as folder:
        yield Path(folder)


def eventually_draws(source: DirectSource) -> bool:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        with suppress(EntropyUnavailableError):
            return len(source.draw(8).data) == 8
    return False


def test_a_proxy_asks_once_for_each_request_and_hands_on_what_it_learns(folder: Path) -> None:
    device, path = NotingDevice(), folder / "direct.sock"
    with (
        serve(device, "127.0.0.1:0") as server,
        proxy(server.address, path) as process,
        closing(DirectSource(f"unix://{path}", timeout_ms=LONG_MS)) as source,
    ):
        assert device.asked == []
        for number in range(1, 6):
            commitment = b"what is decided" + bytes([number])
            before_ns = time.monotonic_ns()
            draw = source.committed_draw(1000, commitment)
            # Nothing was there before the request, and nothing is fetched for a later one.
            assert len(device.asked) == number
            asked_bytes, asked_ns, heard = device.asked[-1]
            assert (asked_bytes, heard) == (1000, commitment)
            assert before_ns <= asked_ns <= draw.received_ns
            assert draw.data == number.to_bytes(4, "big") * 250
            assert (draw.device_id, draw.device_timestamp_ns) == ("serial 7", 1_000 + number)
            assert draw.commitment_echoed is True
        # More than the device's server takes at once: as few requests as possible, for this draw.
        assert len(source.draw(20_480).data) == 20_480
        assert [n for n, *_ in device.asked[5:]] == [13_312, 7_168]
        process.terminate()
        assert process.wait(300) == 0
    assert not path.exists()
    assert len(device.asked) == 7


def test_what_fails_behind_a_proxy_fails_in_front_of_it(folder: Path) -> None:
    device, path = NotingDevice(), folder / "direct.sock"
    with (
        serve(device, f"unix://{folder}/grpc.sock") as server,
        proxy(server.address, path) as process,
        closing(DirectSource(f"unix://{path}", timeout_ms=LONG_MS)) as source,
    ):
        assert len(source.draw(8).data) == 8
        device.fails = True
        with pytest.raises(EntropyUnavailableError, match="the shutter is closed"):
            source.draw(8)
        device.fails = False
        assert len(source.draw(8).data) == 8
        server.stop(0)
        with pytest.raises(EntropyUnavailableError, match="has no bytes at the moment"):
            source.draw(8)
        with serve(device, server.address):
            # gRPC pauses before it connects again.
            assert eventually_draws(source)
            process.kill()
            process.wait()
            with pytest.raises(EntropyUnavailableError):
                source.draw(8)
    assert [n for n, *_ in device.asked] == [8] * len(device.asked)
