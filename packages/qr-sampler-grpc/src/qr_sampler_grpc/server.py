# SPDX-License-Identifier: Apache-2.0
"""Serves any entropy source over gRPC."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Final

import grpc

from qr_sampler.entropy import EntropySource
from qr_sampler.errors import QRSamplerError
from qr_sampler_grpc.address import Address
from qr_sampler_grpc.credentials import ApiKey
from qr_sampler_grpc.fork_guard import FORK_GUARD
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import add_EntropyServiceServicer_to_server
from qr_sampler_grpc.servicer import EntropyServicer
from qr_sampler_grpc.unix_socket import private_files, remove_stale_socket

__all__ = ["EntropyServer", "EntropyServicer", "ServerStartError", "serve"]

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")
_UNARY_WORKERS: Final = 8
# Without it two servers may listen on one port, and half of the requests reach the wrong device.
_OPTIONS: Final = (("grpc.so_reuseport", 0),)


class ServerStartError(QRSamplerError, OSError):
    """A server cannot listen at the address that it was given."""


class EntropyServer:
    """A running server; :func:`serve` starts one. Leaving its ``with`` block stops it."""

    def __init__(self, server: grpc.Server, executor: ThreadPoolExecutor, address: Address) -> None:
        self._server = server
        self._executor = executor
        self._address = address

    @property
    def address(self) -> str:
        """The address that clients use, with the port that was really taken."""
        return str(self._address)

    @property
    def port(self) -> int:
        """The TCP port; 0 for a Unix domain socket."""
        return self._address.port

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for the server to stop, and returns whether *timeout_s* seconds passed first."""
        return self._server.wait_for_termination(timeout_s)

    def stop(self, grace_s: float = 1.0) -> None:
        """Refuses new calls, lets running ones finish for *grace_s* seconds, then cancels them.

        May be called more than once. The source is left open.
        """
        self._server.stop(grace_s).wait()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> EntropyServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def serve(
    source: EntropySource,
    address: str = "127.0.0.1:50051",
    *,
    device_id: str = "",
    api_key: str | None = None,
    api_key_header: str = "api-key",
    max_bytes_per_request: int = 16 * 2**20,
    max_streams: int = 16,
) -> EntropyServer:
    """Returns a server that answers from *source*, already listening.

    A stream occupies one thread for as long as it is open, even while it is silent. The server has
    eight threads more than the *max_streams* that it admits, so single calls are always answered;
    a stream beyond that number ends with RESOURCE_EXHAUSTED.

    Args:
        source: Where the bytes come from; drawn from on request only, by several threads at once.
        address: Where to listen: this machine alone unless told otherwise. Port 0 takes a free
            port. A Unix domain socket is open to the same user only.
        device_id: Identity to report; the source's name when empty.
        api_key: Key that every call must carry; ``None`` answers everybody who can connect. It
            travels unencrypted, so it protects on trusted networks only.
        api_key_header: Lower-case metadata key of the API key.
        max_bytes_per_request: Largest request that is answered.
        max_streams: Most streams that may be open at once.

    Raises:
        ConfigError: When the address or the API key is malformed.
        ServerStartError: When the address cannot be listened at.
    """
    place = Address.parse(address, listening=True)
    credentials = None if api_key is None else ApiKey(api_key_header, api_key)
    if reason := FORK_GUARD.reason_to_refuse():
        raise ServerStartError(reason)
    servicer = EntropyServicer(
        source,
        device_id,
        credentials=credentials,
        max_bytes_per_request=max_bytes_per_request,
        max_streams=max_streams,
    )
    executor = ThreadPoolExecutor(max_streams + _UNARY_WORKERS, "qr-entropy-server")
    server = grpc.server(executor, options=_OPTIONS)
    add_EntropyServiceServicer_to_server(servicer, server)
    running = EntropyServer(server, executor, _bind(server, place))
    server.start()
    _LOGGER.info("serving %s at %s", source.name, running.address)
    return running


def _bind(server: grpc.Server, place: Address) -> Address:
    try:
        if place.path:
            remove_stale_socket(Path(place.path))
        with private_files() if place.path else nullcontext():
            port = server.add_insecure_port(place.target)
    except (OSError, RuntimeError) as error:
        raise ServerStartError(
            f"cannot listen at {place}: {error}; choose another address or stop what is there"
        ) from error
    return place if place.path else Address(host=place.host, port=port)
