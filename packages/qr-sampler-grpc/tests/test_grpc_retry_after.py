# SPDX-License-Identifier: Apache-2.0
"""Which failures only time is needed for, and how much of it: what patient callers go by."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from qr_sampler import EntropySource, EntropyUnavailableError
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.direct.server import serve_direct
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.link import EXHAUSTED_PAUSE_S
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource

MODES = ("unary", "server_streaming", "bidi_streaming")


def failure(source: EntropySource, n: int = 8) -> EntropyUnavailableError:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(n)
    return caught.value


@pytest.mark.parametrize("mode", MODES)
def test_a_quota_of_the_server_recovers(mode: str) -> None:
    with serve(os.urandom, "127.0.0.1:0", requests_per_minute=1) as server:
        source = QuantumGrpcSource(server.address, mode=mode)
        source.draw(8)
        error = failure(source)
        source.close()
    assert "has reached a limit" in error.reason
    assert error.retry_after_s == EXHAUSTED_PAUSE_S


def test_a_quota_of_a_direct_server_recovers(socket_path: Path) -> None:
    device = Device(os.urandom, requests_per_minute=1)
    with serve_direct(device, f"unix://{socket_path}") as server:
        source = DirectSource(server.address)
        source.draw(8)
        assert failure(source).retry_after_s == EXHAUSTED_PAUSE_S
        source.close()


def test_a_quota_of_the_settings_says_when_it_recovers() -> None:
    with serve(os.urandom, "127.0.0.1:0") as server:
        source = QuantumGrpcSource(
            server.address, max_requests_per_minute=1, max_bytes_per_request=100
        )
        source.draw(8)
        wait_s = failure(source).retry_after_s
        # Two requests never fit into a quota of one.
        never = failure(source, 200).retry_after_s
        source.close()
    assert wait_s is not None
    assert 0.0 < wait_s <= 60.0
    assert never == math.inf


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "at most 4 bytes"),
        (grpc.StatusCode.UNAUTHENTICATED, "who are you?"),
        # gRPC itself uses the status of a quota for a message beyond its bounds.
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (9 vs. 8)"),
    ],
)
def test_waiting_is_no_help_against_other_failures(
    scripted: Callable[..., Any], code: grpc.StatusCode, details: str
) -> None:
    def refuse(_message: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, details)
        return b""

    source = QuantumGrpcSource(scripted(refuse).address)
    error = failure(source)
    source.close()
    assert error.retry_after_s is None


def test_a_socket_without_a_server_is_no_quota(socket_path: Path) -> None:
    assert failure(DirectSource(f"unix://{socket_path}")).retry_after_s is None
