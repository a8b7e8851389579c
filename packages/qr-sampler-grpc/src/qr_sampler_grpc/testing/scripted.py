# SPDX-License-Identifier: Apache-2.0
"""Servers whose every answer a function makes, which may make it wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

import grpc

from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.patience import NO_BREAKER, PATIENT_MS

__all__ = [
    "ENTROPY_METHOD",
    "WAYS",
    "Behaviour",
    "ScriptedServer",
    "ScriptedStreams",
    "StreamBehaviour",
    "answer",
    "honest",
    "source_for",
]

ENTROPY_METHOD: Final = "/qr_entropy.EntropyService/GetEntropy"
"""The unary method of the wire contract."""
WAYS: Final = [
    (mode, stubs)
    for mode in ("unary", "server_streaming", "bidi_streaming")
    for stubs in ("sync", "aio")
]
"""Every mode with each of gRPC's two interfaces."""
Behaviour: TypeAlias = Callable[[bytes, grpc.ServicerContext], bytes]
"""Returns the answer to a request, both as they are on the wire."""
StreamBehaviour: TypeAlias = Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]
"""Yields the messages that a request is answered with."""


class ScriptedServer:
    """A server that answers one method with whatever a function returns, and notes every call.

    Args:
        behaviour: Makes the answers.
        method: The method, as ``/package.Service/Method``.
    """

    def __init__(self, behaviour: Behaviour, method: str = ENTROPY_METHOD) -> None:
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
        """Ends the server and its calls."""
        self._server.stop(0).wait()
        self._executor.shutdown(wait=False)


class ScriptedStreams:
    """A server whose unary and streaming methods both send whatever a function yields.

    The unary method sends the first message of each, and hangs where there is none.

    Args:
        behaviour: Makes the answers.
        port: The port of the loopback interface; 0 takes a free one.
    """

    def __init__(self, behaviour: StreamBehaviour, port: int = 0) -> None:
        self.requests: list[bytes] = []
        self.arrived_ns: list[int] = []
        self.let_go = threading.Event()
        self._behaviour = behaviour
        handlers: dict[str, Any] = {
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
        """Ends the server and its calls."""
        self.let_go.set()
        self._server.stop(0).wait()
        self._executor.shutdown(wait=False)


def answer(request: bytes, **changes: Any) -> bytes:
    """Returns the right answer to a request of the wire contract, but for *changes*.

    The data repeat the lowest byte of the request's name.
    """
    asked = EntropyRequest.FromString(request)
    facts = {
        "data": bytes([asked.sequence_id % 256]) * asked.bytes_needed,
        "sequence_id": asked.sequence_id,
        "commitment": asked.commitment,
        "device_id": "bench-7",
        "generation_timestamp_ns": time.time_ns(),
    }
    return EntropyResponse(**{**facts, **changes}).SerializeToString()


def honest(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """Yields the right answer; a :data:`StreamBehaviour`."""
    yield answer(request)


def source_for(server: Any, mode: str, stubs: str, **options: Any) -> QuantumGrpcSource:
    """Returns a source that draws from *server* and is not stopped by failures."""
    defaults: dict[str, Any] = {"timeout_ms": PATIENT_MS, "breaker": NO_BREAKER}
    return QuantumGrpcSource(server.address, mode=mode, stubs=stubs, **{**defaults, **options})
