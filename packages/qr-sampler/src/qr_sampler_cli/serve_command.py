# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler serve-entropy``: the reference server, answering from any installed source."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from qr_sampler.errors import ConfigError
from qr_sampler.registry import create_source
from qr_sampler_cli.failures import import_package, reports_errors
from qr_sampler_cli.remedies import from_clone
from qr_sampler_cli.server_process import READY_PREFIX

__all__ = ["serve_entropy"]

NEEDED_FOR = "serve-entropy"
REMEDY = "install it " + from_clone("qr-sampler-grpc")


@reports_errors
def serve_entropy(
    address: Annotated[
        str,
        typer.Option(
            help="Where to listen: host:port, with port 0 for a free one, or unix:///path."
        ),
    ] = "127.0.0.1:50051",
    source: Annotated[
        str, typer.Option(help="Entropy source to serve, see 'qr-sampler sources'.")
    ] = "system",
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File that holds the API key which every call must carry."),
    ] = None,
    api_key_header: Annotated[
        str, typer.Option(help="Lower-case metadata key of the API key.")
    ] = "api-key",
    device_id: Annotated[
        str, typer.Option(help="Identity to report to clients; the source's name by default.")
    ] = "",
) -> None:
    """Serve an installed entropy source over gRPC until SIGINT or SIGTERM.

    Prints "listening on ADDRESS" when it is ready. Bytes are drawn when a request arrives.
    """
    server_kit: Any = import_package("qr_sampler_grpc.server", needed_for=NEEDED_FOR, remedy=REMEDY)
    api_key = None if api_key_file is None else _read_key(api_key_file)
    _warn_if_exposed(address, has_key=api_key is not None)
    with contextlib.closing(create_source(source)) as served, _stop_signals() as stop:
        status = served.status()
        if not status.available:
            _warn(f"{source} is not available yet: {status.reason}")
        with server_kit.serve(
            served,
            address,
            # The user has been warned above.
            insecure=True,
            device_id=device_id,
            api_key=api_key,
            api_key_header=api_key_header,
        ) as server:
            typer.echo(f"serving {source}; QR_GRPC_SERVER_ADDRESS={server.address}", err=True)
            typer.echo(f"{READY_PREFIX}{server.address}")
            # A wait without end could not be interrupted everywhere.
            while not stop.wait(1.0):
                pass
    typer.echo("stopped", err=True)


def _read_key(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the API key from {file}: {error}") from error


def _warn_if_exposed(address: str, *, has_key: bool) -> None:
    addresses: Any = import_package("qr_sampler_grpc.address", needed_for=NEEDED_FOR, remedy=REMEDY)
    if addresses.Address.parse(address, listening=True).is_local:
        return
    if has_key:
        _warn(
            f"{address} can be reached from other machines and nothing is encrypted, not even "
            "the API key; use it on trusted networks only"
        )
    else:
        _warn(
            f"{address} can be reached from other machines and WITHOUT AN API KEY anybody there "
            "can draw from this source; set --api-key-file or listen on 127.0.0.1"
        )


def _warn(message: str) -> None:
    typer.secho(f"warning: {message}", err=True, fg=typer.colors.YELLOW, bold=True)


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Yields an event that SIGINT and SIGTERM set instead of what they did before."""
    stop = threading.Event()

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {
        number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
