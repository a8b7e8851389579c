# SPDX-License-Identifier: Apache-2.0
"""An entropy server in a separate process, for as long as a block runs."""

from __future__ import annotations

import contextlib
import subprocess  # nosec B404 - one call, without a shell
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Final

from qr_sampler.errors import QRSamplerError

__all__ = [
    "READY_PREFIX",
    "ServerProcessError",
    "announced_address",
    "entropy_server",
    "stop",
]

READY_PREFIX: Final = "listening on "
"""Prefix of the line on which ``serve-entropy`` prints the address that it listens on."""

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0


class ServerProcessError(QRSamplerError, RuntimeError):
    """The entropy server ended, or stayed silent, before it listened."""


@contextlib.contextmanager
def entropy_server(arguments: Sequence[str] = ()) -> Iterator[str]:
    """Runs ``qr-sampler serve-entropy`` on a free loopback port and yields its address.

    The server is stopped however the block ends.

    Args:
        arguments: Further arguments of ``serve-entropy``.

    Raises:
        ServerProcessError: When the server does not come up.
    """
    command = [sys.executable, "-m", "qr_sampler_cli", "serve-entropy", "--address=127.0.0.1:0"]
    # Our own interpreter and our own arguments, without a shell.
    with subprocess.Popen(  # nosec B603
        [*command, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield announced_address(process)
        finally:
            stop(process)


def announced_address(process: subprocess.Popen[str]) -> str:
    """Returns the address that a starting server prints.

    Raises:
        ServerProcessError: When it ends, or prints none in time.
    """
    # A server that hangs is killed, which ends its output and with it the wait below.
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        address = _announced(process.stdout)
    finally:
        watchdog.cancel()
    if address is None:
        raise ServerProcessError(
            f"the entropy server ended with status {process.wait()} before it listened; its own "
            "message is above"
        )
    return address


def _announced(output: IO[str] | None) -> str | None:
    for line in output or ():
        if line.startswith(READY_PREFIX):
            return line.removeprefix(READY_PREFIX).strip()
    return None


def stop(process: subprocess.Popen[str]) -> None:
    """Ends a server, forcibly if it does not terminate in time."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
