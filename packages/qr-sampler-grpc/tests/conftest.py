# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the gRPC tests: servers that behave as a test tells them, and fresh processes."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, settings

# Derandomised: a run that passes today passes tomorrow; machines differ in speed.
settings.register_profile(
    "qr-sampler-grpc",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("qr-sampler-grpc")

LONG = {
    "test_direct_processes.py",
    "test_grpc_faults.py",
    "test_grpc_leaks.py",
    "test_grpc_processes.py",
    "test_grpc_server_programs.py",
}
"""Files that come first, so that no worker of pytest-xdist is left with much to do at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


ENTROPY_METHOD = "/qr_entropy.EntropyService/GetEntropy"

Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]


class ScriptedServer:
    """A server that answers one method with whatever a function returns, and notes every call."""

    def __init__(self, behaviour: Behaviour, method: str) -> None:
        self.requests: list[bytes] = []
        self.metadata: list[dict[str, str]] = []
        self._behaviour = behaviour
        service, name = method.lstrip("/").split("/")
        handler = grpc.method_handlers_generic_handler(
            service, {name: grpc.unary_unary_rpc_method_handler(self._handle)}
        )
        self._executor = ThreadPoolExecutor(8)
        self._server = grpc.server(self._executor, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((handler,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _handle(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.requests.append(request)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        return self._behaviour(request, context)

    def stop(self) -> None:
        self._server.stop(0).wait()
        self._executor.shutdown(wait=False)


StreamBehaviour = Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]


class ScriptedStreams:
    """A server whose unary and streaming methods both send whatever a function yields.

    The unary method sends the first message of each, and hangs where there is none.
    """

    def __init__(self, behaviour: StreamBehaviour, port: int = 0) -> None:
        self.requests: list[bytes] = []
        self.arrived_ns: list[int] = []
        self.let_go = threading.Event()
        self._behaviour = behaviour
        handlers = {
            "GetEntropy": grpc.unary_unary_rpc_method_handler(self._unary),
            "StreamEntropy": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        handler = grpc.method_handlers_generic_handler("qr_entropy.EntropyService", handlers)
        self._executor = ThreadPoolExecutor(80)
        self._server = grpc.server(self._executor, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((handler,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def _answers(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.arrived_ns.append(time.monotonic_ns())
        self.requests.append(request)
        yield from self._behaviour(request, context)

    def _unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        for message in self._answers(request, context):
            return message
        self.let_go.wait(60)
        return b""

    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield from self._answers(request, context)

    def stop(self) -> None:
        self.let_go.set()
        self._server.stop(0).wait()
        self._executor.shutdown(wait=False)


@pytest.fixture
def scripted_streams() -> Iterator[Callable[..., ScriptedStreams]]:
    """Starts servers of unary and streaming methods; all stop after the test."""
    with ExitStack() as running:

        def start(behaviour: StreamBehaviour, port: int = 0) -> ScriptedStreams:
            server = ScriptedStreams(behaviour, port)
            running.callback(server.stop)
            return server

        yield start


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the operator's own variables and `.env` file from every test."""
    for name in os.environ:
        if name.upper().startswith("QR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts servers that answer with the result of a function; all stop after the test."""
    with ExitStack() as running:

        def start(behaviour: Behaviour, method: str = ENTROPY_METHOD) -> ScriptedServer:
            server = ScriptedServer(behaviour, method)
            running.callback(server.stop)
            return server

        yield start


@pytest.fixture
def names_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names requests 1, 2, 3 and so on, for servers that behave by the name."""
    monkeypatch.setattr("qr_sampler_grpc.source._unguessable_name", itertools.count(1).__next__)


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path short enough for a socket, which pytest's own folders are not on every machine."""
    with tempfile.TemporaryDirectory(prefix="qr") as folder:
        yield Path(folder) / "entropy.sock"


@pytest.fixture
def lasting_port() -> int:
    """A free loopback port that stays free while nobody listens.

    It lies below those that the system hands out by itself, so that nothing takes it by chance
    between the end of a server and the start of its successor.
    """
    for port in random.sample(range(10_000, 32_768), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports are in use")


@pytest.fixture
def limited() -> Callable[[Any, float], AbstractContextManager[None]]:
    """Gives the gRPC draws within a block another time limit, in milliseconds.

    A draw that is to fail by a short limit leaves the others all the time that a busy machine may
    need.
    """

    @contextmanager
    def limit(source: Any, timeout_ms: float) -> Iterator[None]:
        # Deadlines are learnt below the limit that holds when the link is made.
        source._link()
        with pytest.MonkeyPatch.context() as patch:
            options = source._options.model_copy(update={"timeout_ms": timeout_ms})
            patch.setattr(source, "_options", options)
            yield

    return limit


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Runs a script in a process of its own and returns what it prints; a hang is a failure."""

    def run(script: str, *arguments: str, **environment: str) -> str:
        finished = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.strip()

    return run
