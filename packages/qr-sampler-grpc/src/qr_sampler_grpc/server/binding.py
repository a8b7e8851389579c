# SPDX-License-Identifier: Apache-2.0
"""Takes the address that a server listens at."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import grpc

from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.connection.unix_socket import private_files, remove_stale_socket

__all__ = ["ServerStartError", "bind", "check_exposure", "check_metrics_exposure"]


class ServerStartError(QRSamplerError, OSError):
    """A server cannot listen at the address that it was given."""


def check_exposure(place: Address, *, encrypted: bool, insecure: bool) -> None:
    """Returns if a server may listen at *place*.

    Raises:
        ConfigError: When other machines could reach it, nothing is encrypted and this was not
            explicitly allowed.
    """
    if place.is_local or encrypted or insecure:
        return
    raise ConfigError(
        f"{place} can be reached from other machines and nothing would be encrypted; give the "
        "server a certificate (tls=ServerTls(...), --tls-certificate), listen on 127.0.0.1 or a "
        "Unix domain socket, or pass insecure=True (--insecure) on a network that you trust"
    )


def check_metrics_exposure(place: Address, *, insecure: bool) -> None:
    """Returns if metrics may be offered at *place*; they are never encrypted.

    Raises:
        ConfigError: When other machines could read them and this was not explicitly allowed.
    """
    if place.is_local or insecure:
        return
    raise ConfigError(
        f"metrics at {place} could be read from other machines, without a key and unencrypted, "
        "also where the server has a certificate; offer them at 127.0.0.1, or pass insecure=True "
        "(--insecure) on a network that you trust"
    )


def bind(
    server: grpc.Server, place: Address, credentials: grpc.ServerCredentials | None
) -> Address:
    """Makes *server* listen at *place* and returns where it really does.

    Args:
        server: A server that has not been started.
        place: Where to listen; port 0 takes a free one. A Unix domain socket is created private to
            this user, in place of one that a dead server left.
        credentials: What connections are encrypted with; ``None`` leaves them as they are.

    Raises:
        ServerStartError: When something else is there, or the address is not available.
    """
    try:
        if place.path:
            remove_stale_socket(Path(place.path))
        with private_files() if place.path else nullcontext():
            if credentials is None:
                port = server.add_insecure_port(place.target)
            else:
                port = server.add_secure_port(place.target, credentials)
    except (OSError, RuntimeError) as error:
        raise ServerStartError(
            f"cannot listen at {place}: {error}; choose another address or stop what is there"
        ) from error
    return place if place.path else Address(host=place.host, port=port)
