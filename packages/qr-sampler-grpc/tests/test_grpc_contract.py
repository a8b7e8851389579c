# SPDX-License-Identifier: Apache-2.0
"""The source fulfils the contract of all entropy sources, in every mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from qr_sampler import ENTROPY_SOURCES, Origin, create_source
from qr_sampler.testing import EntropySourceContract
from qr_sampler_grpc.server import EntropyServer, serve
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.devices import CountedUrandom
from qr_sampler_grpc.testing.patience import NO_BREAKER


class Checks(EntropySourceContract):
    """All modes and addresses alike."""

    not_applicable: ClassVar[dict[str, str]] = {
        "test_a_fork_gets_bytes_of_its_own": "gRPC cannot be used in a fork of a process that "
        "serves with it, as this one does; test_grpc_processes.py forks one that does not"
    }

    mode = "unary"
    stubs = "sync"

    @pytest.fixture
    def device(self) -> CountedUrandom:
        return CountedUrandom()

    @pytest.fixture
    def server(self, device: CountedUrandom, address: str) -> Iterator[EntropyServer]:
        with serve(device, address) as server:
            yield server

    @pytest.fixture
    def source(self, server: EntropyServer) -> Iterator[QuantumGrpcSource]:
        source = QuantumGrpcSource(
            server.address,
            mode=self.mode,
            stubs=self.stubs,
            max_bytes_per_request=1024,
            # How fast a busy machine is, is not in the contract.
            breaker=NO_BREAKER,
        )
        yield source
        source.close()

    @pytest.fixture
    def generation_log(self, device: CountedUrandom) -> Callable[[], int]:
        return lambda: device.generated

    @pytest.fixture
    def fault(self, server: EntropyServer) -> Callable[[], None]:
        return server.stop


class TestOverTcp(Checks):
    @pytest.fixture
    def address(self) -> str:
        return "127.0.0.1:0"


class TestServerStreaming(TestOverTcp):
    mode = "server_streaming"


class TestBidiStreaming(TestOverTcp):
    mode = "bidi_streaming"


class TestUnaryOfAio(TestOverTcp):
    stubs = "aio"


class TestServerStreamingOfAio(TestServerStreaming):
    stubs = "aio"


class TestBidiStreamingOfAio(TestBidiStreaming):
    stubs = "aio"


class TestOverUnixSocket(Checks):
    @pytest.fixture
    def address(self, socket_path: Path) -> str:
        return f"unix://{socket_path}"


def test_the_entry_point_leads_to_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENTROPY_SOURCES.load("quantum_grpc") is QuantumGrpcSource
    monkeypatch.setenv("QR_GRPC_SERVER_ADDRESS", "unix:///run/e.sock")
    source: Any = create_source("quantum_grpc")
    assert source.name == "quantum_grpc"
    assert isinstance(source.origin, Origin)
    assert source.origin.distribution == "qr-sampler-grpc"
    assert repr(source) == "QuantumGrpcSource('unix:///run/e.sock', mode='unary')"
