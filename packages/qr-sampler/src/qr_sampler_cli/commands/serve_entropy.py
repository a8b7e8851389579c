# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler serve-entropy``: the reference server, answering from any installed source."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from qr_sampler import create_source
from qr_sampler.errors import ConfigError
from qr_sampler.stop_request import StopRequest
from qr_sampler_cli.failures import import_package, reports_errors
from qr_sampler_cli.remedies import from_clone
from qr_sampler_cli.server_process import READY_PREFIX
from qr_sampler_cli.terminal.signals import stop_signals

__all__ = ["serve_entropy"]

DEFAULT_ADDRESS = "127.0.0.1:50051"
NEEDED_FOR = "serve-entropy"
REMEDY = "install it " + from_clone("qr-sampler-grpc")


@reports_errors
def serve_entropy(
    address: Annotated[
        str | None,
        typer.Option(
            help=(
                "Where to listen: host:port, with port 0 for a free one, or unix:///path. "
                f"{DEFAULT_ADDRESS} unless --direct is given."
            ),
            show_default=False,
        ),
    ] = None,
    direct: Annotated[
        str | None,
        typer.Option(help="Serve the source 'direct' there, too: unix:///path."),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Entropy source to serve, see 'qr-sampler sources'.")
    ] = "system",
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the API keys, one a line; every call must carry one."),
    ] = None,
    api_key_header: Annotated[
        str, typer.Option(help="Lower-case metadata key of the API key.")
    ] = "api-key",
    device_id: Annotated[
        str,
        typer.Option(
            help="Identity to report to clients; by default what the source says of its device, "
            "else its name."
        ),
    ] = "",
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file; encrypts all connections.")
    ] = None,
    tls_private_key: Annotated[
        Path | None, typer.Option(help="PEM file with the key of the certificate.")
    ] = None,
    signing_key: Annotated[
        Path | None,
        typer.Option(help="Ed25519 private key in PEM form; signs every answer."),
    ] = None,
    witness_log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Append to a chained file what was answered, without the bytes."
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Allow an address that other machines can reach without a certificate.",
        ),
    ] = False,
) -> None:
    """Serve an installed entropy source until SIGINT or SIGTERM.

    Prints "listening on ADDRESS" when it is ready. Bytes are drawn when a request arrives.
    """
    if address is None and direct is None:
        address = DEFAULT_ADDRESS
    stop = StopRequest()
    with (
        contextlib.closing(create_source(source)) as served,
        stop_signals(stop.set),
        contextlib.ExitStack() as servers,
    ):
        status = served.status()
        if not status.available:
            _warn(f"{source} is not available yet: {status.reason}")
        device = _kit("device").Device(
            served,
            device_id,
            signing_key=_signing_key(signing_key),
            witness_log=_witness_log(witness_log, device_id, servers),
        )
        addresses = []
        if address is not None:
            server = _kit("server").serve(
                device,
                address,
                tls=_tls(tls_certificate, tls_private_key),
                insecure=insecure,
                api_key_file=api_key_file,
                api_key_header=api_key_header,
            )
            servers.enter_context(server)
            _announce(source, address, server.address)
            if api_key_file is None:
                _warn_if_open(address)
            addresses.append(server.address)
        if direct is not None:
            beside = servers.enter_context(_kit("direct.server").serve_direct(device, direct))
            typer.echo(f"serving {source}; QR_DIRECT_SERVER_ADDRESS={beside.address}", err=True)
            addresses.append(beside.address)
        # Scripts wait for this line, after which everything is ready.
        typer.echo(f"{READY_PREFIX}{addresses[0]}")
        # A wait without a timeout could not be interrupted on every platform.
        while not stop.wait(1.0):
            pass
    typer.echo("stopped", err=True)


def _kit(name: str) -> Any:
    return import_package(f"qr_sampler_grpc.{name}", needed_for=NEEDED_FOR, remedy=REMEDY)


def _tls(certificate: Path | None, private_key: Path | None) -> Any:
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        raise ConfigError("give both --tls-certificate and --tls-private-key, or neither")
    return _kit("server").ServerTls(certificate=certificate, private_key=private_key)


def _signing_key(path: Path | None) -> Any:
    return None if path is None else _kit("protocol.attestation").SigningKey(path)


def _witness_log(path: Path | None, device_id: str, servers: contextlib.ExitStack) -> Any:
    if path is None:
        return None
    return servers.enter_context(_kit("device.witness_log").WitnessLog(path, device_id))


def _announce(source: str, asked: str, reachable: str) -> None:
    """Prints where clients connect: a wildcard address that a server listens on is not enough."""
    line = f"serving {source}; QR_GRPC_SERVER_ADDRESS={reachable}"
    if not _is_local(asked):
        line += " on this machine; elsewhere put the name of this machine in front of the port"
    typer.echo(line, err=True)


def _is_local(address: str) -> bool:
    is_local: bool = _kit("connection.address").Address.parse(address, listening=True).is_local
    return is_local


def _warn_if_open(address: str) -> None:
    if _is_local(address):
        return
    _warn(
        f"{address} can be reached from other machines and WITHOUT AN API KEY anybody there can "
        "draw from this source; set --api-key-file or listen on 127.0.0.1"
    )


def _warn(message: str) -> None:
    typer.secho(f"warning: {message}", err=True, fg=typer.colors.YELLOW, bold=True)
