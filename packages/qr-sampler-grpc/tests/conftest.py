# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the gRPC tests: servers that behave as a test tells them, and fresh processes."""

from __future__ import annotations

import importlib
import itertools
import os
import random
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.testing.patience import NO_BREAKER, PATIENT_MS
from qr_sampler_grpc.testing.scripted import (
    ENTROPY_METHOD,
    Behaviour,
    ScriptedServer,
    ScriptedStreams,
    StreamBehaviour,
)
from qr_sampler_grpc.testing.scripted_direct import DirectBehaviour, ScriptedDirectServer

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
    monkeypatch.setattr("qr_sampler_grpc.source.unguessable", itertools.count(1).__next__)


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path short enough for a socket, which pytest's own folders are not on every machine."""
    with tempfile.TemporaryDirectory(prefix="qr") as folder:
        yield Path(folder) / "entropy.sock"


@pytest.fixture
def scripted_direct(socket_path: Path) -> Iterator[Callable[..., ScriptedDirectServer]]:
    """Starts servers of the direct protocol at ``socket_path``; all stop after the test."""
    with ExitStack() as running:

        def start(behaviour: DirectBehaviour) -> ScriptedDirectServer:
            server = ScriptedDirectServer(socket_path, behaviour)
            running.callback(server.stop)
            return server

        yield start


@pytest.fixture
def direct_source(socket_path: Path) -> Iterator[Callable[..., DirectSource]]:
    """Makes sources for ``socket_path`` that wait long and try always, unless told otherwise."""
    with ExitStack() as made:

        def make(**options: Any) -> DirectSource:
            defaults: dict[str, Any] = {"timeout_ms": PATIENT_MS, "breaker": NO_BREAKER}
            source = DirectSource(f"unix://{socket_path}", **{**defaults, **options})
            made.callback(source.close)
            return source

        yield make


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
        source._links.get()
        with pytest.MonkeyPatch.context() as patch:
            options = source._options.model_copy(update={"timeout_ms": timeout_ms})
            patch.setattr(source, "_options", options)
            yield

    return limit


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Runs a script in its own process and returns what it prints; a hang is a failure."""

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


@pytest.fixture(scope="session")
def campaign() -> Callable[[str], ModuleType]:
    """Imports a campaign of this package by its name."""

    folder = Path(__file__).parents[1] / "campaigns"

    def load(name: str) -> ModuleType:
        if not folder.exists():
            pytest.skip("the campaigns are not part of the source distribution")
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        return importlib.import_module(name)

    return load
