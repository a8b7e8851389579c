# SPDX-License-Identifier: Apache-2.0
"""The command line of a server program: its options, and its life until a signal."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qr_sampler.entropy import EntropySource
from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler.stop_request import StopRequest
from qr_sampler_grpc.device.generate import Generate
from qr_sampler_grpc.server.logs import FORMATS, configure_logging
from qr_sampler_grpc.server.running import EntropyServer
from qr_sampler_grpc.server.serving import serve
from qr_sampler_grpc.server.tls import ServerTls

if TYPE_CHECKING:
    from types import FrameType

    from qr_sampler_grpc.device import Device

__all__ = ["READY_PREFIX", "add_options", "run"]

READY_PREFIX: Final = "entropy server listening on "
"""Beginning of the line on standard output that gives the address."""

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")
_LEVELS: Final = ("debug", "info", "warning", "error")
_HELD_UP: Final = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that :func:`run` reads to *parser*. No secret is given in an option."""
    _add_listening(parser.add_argument_group("where to listen"))
    _add_access(parser.add_argument_group("who may draw, and how much"))
    _add_output(parser.add_argument_group("what is told"))


def run(source: EntropySource | Generate | Device, options: argparse.Namespace) -> int:
    """Serves *source* until SIGTERM or SIGINT, and returns the exit status for ``sys.exit``.

    Prints one line on the standard output when it is ready, ``entropy server listening on
    ADDRESS``. Logs go to the standard error. After the signal, running requests get ``--grace``
    seconds. A device that holds up its thread for longer ends the process with status 3; a mistake
    in the options with status 2.

    Args:
        source: What :func:`~qr_sampler_grpc.server.serve` takes. Left open.
        options: What a parser with :func:`add_options` returned.
    """
    configure_logging(options.log_format, options.log_level)
    with _stop_signals() as stop, ExitStack() as logs:
        try:
            witness_log = _witness_log(options, logs)
            arguments = {**_arguments(options), "witness_log": witness_log}
            server = serve(source, options.address, **arguments)
        except QRSamplerError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        try:
            beside = _serve_beside(server, options.direct)
        except QRSamplerError as error:
            print(f"error: {error}", file=sys.stderr)
            server.stop(0.0)
            return 2
        with beside:
            print(f"{READY_PREFIX}{server.address}", flush=True)
            # An endless wait cannot be interrupted on every platform.
            while not stop.wait(1.0):
                pass
        return _stop(server, options.grace)


def _serve_beside(server: EntropyServer, address: str | None) -> AbstractContextManager[object]:
    """Returns what serves the device of *server* over a bare socket, too, if that is asked for."""
    if address is None:
        return nullcontext()
    from qr_sampler_grpc.direct.server import serve_direct

    return serve_direct(server.device, address)


def _stop(server: EntropyServer, grace_s: float) -> int:
    server.stop(grace_s)
    if server.device.wait_until_idle(grace_s):
        return 0
    _LOGGER.error("the device does not return; the process ends without it")
    logging.shutdown()
    # A regular exit would wait for the thread that waits for the device.
    os._exit(_HELD_UP)


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "device_id": options.device_id,
        "tls": _tls(options),
        "insecure": options.insecure,
        "api_key_file": options.api_key_file,
        "api_key_header": options.api_key_header,
        "max_bytes_per_request": options.max_bytes_per_request,
        "max_streams": options.max_streams,
        "requests_per_minute": options.requests_per_minute,
        "bytes_per_day": options.bytes_per_day,
        "signing_key": _signing_key(options.signing_key),
        "metrics_address": options.metrics_address,
    }


def _tls(options: argparse.Namespace) -> ServerTls | None:
    if options.tls_certificate is None and options.tls_private_key is None:
        if options.tls_client_ca is not None:
            raise ConfigError(
                "--tls-client-ca needs --tls-certificate and --tls-private-key beside it"
            )
        return None
    if options.tls_certificate is None or options.tls_private_key is None:
        raise ConfigError("give both --tls-certificate and --tls-private-key, or neither")
    return ServerTls(
        certificate=options.tls_certificate,
        private_key=options.tls_private_key,
        client_ca=options.tls_client_ca,
    )


def _signing_key(path: Path | None) -> Any:
    if path is None:
        return None
    from qr_sampler_grpc.protocol.attestation import SigningKey

    return SigningKey(path)


def _witness_log(options: argparse.Namespace, logs: ExitStack) -> Any:
    if options.witness_log is None:
        return None
    from qr_sampler_grpc.device.witness_log import WitnessLog

    return logs.enter_context(WitnessLog(options.witness_log, options.device_id))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


# Their common class is private to argparse.
def _add_listening(group: Any) -> None:
    group.add_argument(
        "--address",
        default="127.0.0.1:50051",
        help="host:port, with port 0 for a free one, or unix:///path (%(default)s)",
    )
    group.add_argument(
        "--direct", metavar="unix:///PATH", help="serve the source 'direct' there, too"
    )
    group.add_argument("--tls-certificate", type=Path, help="PEM file; encrypts all connections")
    group.add_argument("--tls-private-key", type=Path, help="PEM file with its key")
    group.add_argument(
        "--tls-client-ca", type=Path, help="PEM file; clients must show a certificate of it"
    )
    group.add_argument(
        "--insecure",
        action="store_true",
        help="allow other machines to reach the server without a certificate, and the metrics",
    )
    group.add_argument(
        "--grace",
        type=_seconds,
        default=1.0,
        help="seconds for running requests at the end (%(default)s)",
    )


def _add_access(group: Any) -> None:
    group.add_argument("--api-key-file", type=Path, help="accepted API keys, one a line")
    group.add_argument(
        "--api-key-header", default="api-key", help="metadata key of the API key (%(default)s)"
    )
    group.add_argument(
        "--max-bytes-per-request", type=int, default=16 * 2**20, help="(%(default)s)"
    )
    group.add_argument("--max-streams", type=int, default=16, help="open at once (%(default)s)")
    group.add_argument(
        "--requests-per-minute", type=int, help="for each API key; no limit if unset"
    )
    group.add_argument("--bytes-per-day", type=int, help="for each API key; no limit if unset")


def _add_output(group: Any) -> None:
    group.add_argument("--device-id", default="", help="identity to report")
    group.add_argument("--signing-key", type=Path, help="Ed25519 PEM file; signs every answer")
    group.add_argument(
        "--witness-log",
        type=Path,
        metavar="FILE",
        help="append to a chained file what was answered, without the bytes",
    )
    group.add_argument("--metrics-address", help="host:port for Prometheus; none if unset")
    group.add_argument("--log-format", choices=FORMATS, default="text")
    group.add_argument("--log-level", choices=_LEVELS, default="info")


@contextmanager
def _stop_signals() -> Iterator[StopRequest]:
    """Yields an event that SIGINT and SIGTERM set instead of what they did before."""
    stop = StopRequest()

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, request_stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
