# SPDX-License-Identifier: Apache-2.0
"""The health check of the deployments, against servers of the kit."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource

SCRIPT = Path(__file__).parents[3] / "deployments" / "docker" / "health_check.py"

if not SCRIPT.exists():
    pytest.skip("the deployments are not part of the source distribution", allow_module_level=True)
pytest.importorskip("grpc_health", reason="the extra `server` is not installed")


def check(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-W", "error", str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


def test_a_serving_server_is_healthy_and_is_not_drawn_from(socket_path: Path) -> None:
    asked = []

    def measure(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    # Health is told to everybody, so the check needs no key.
    with serve(measure, f"unix://{socket_path}", api_key="k3y") as server:
        assert check(server.address) == (0, "")
    assert asked == []


def test_a_silent_address_is_not() -> None:
    with serve(bytes, "127.0.0.1:0") as server:
        address = server.address
    status, message = check(address)
    assert status == 1
    assert f"{address}: UNAVAILABLE" in message
    assert "Traceback" not in message


def test_a_server_with_a_broken_device_is_not() -> None:
    def broken(_count: int) -> bytes:
        raise OSError("the cable is out")

    with serve(broken, "127.0.0.1:0") as server:
        source = QuantumGrpcSource(server.address)
        with pytest.raises(EntropyUnavailableError, match="the cable is out"):
            source.draw(8)
        source.close()
        status, message = check(server.address)
    assert (status, "NOT_SERVING" in message) == (1, True)


def test_it_waits_for_a_server_that_comes(socket_path: Path) -> None:
    results: list[tuple[int, str]] = []
    address = f"unix://{socket_path}"
    asking = threading.Thread(target=lambda: results.append(check("--wait", "60", address)))
    asking.start()
    with serve(bytes, address):
        asking.join()
    assert results == [(0, "")]
