# SPDX-License-Identifier: Apache-2.0
"""``python -m qr_entropy_http.simulators PRESET``: a service to try, until Ctrl-C."""

from __future__ import annotations

import argparse
import ssl
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from qr_entropy_http.simulators import FAULTS, PROTOCOLS, Simulator


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is interrupted, and then prints what it was asked for."""
    options = _parser().parse_args(arguments)
    with Simulator(
        options.preset, key=options.key, port=options.port, tls=_tls(options)
    ) as simulator:
        simulator.fault, simulator.fault_after = options.fault, options.after
        _introduce(simulator, options)
        with suppress(KeyboardInterrupt):
            threading.Event().wait(options.seconds)
    print(f"{simulator.requests} requests, {simulator.spent_bytes} random bytes")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qr_entropy_http.simulators",
        description="Speak the protocol of a service on 127.0.0.1. The bytes are the system's.",
    )
    parser.add_argument("preset", choices=sorted(PROTOCOLS))
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--key", default="simulated", help="API key, where the service has one")
    parser.add_argument("--fault", choices=FAULTS, default="", help="what to do wrong")
    parser.add_argument("--after", type=int, default=0, help="requests to serve before that")
    parser.add_argument("--seconds", type=float, default=None, help="end after so long")
    parser.add_argument("--tls-certificate", type=Path, help="PEM file; encrypts with --tls-key")
    parser.add_argument("--tls-key", type=Path)
    return parser


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.tls_certificate, options.tls_key)
    return context


def _introduce(simulator: Simulator, options: argparse.Namespace) -> None:
    print(f"QR_HTTP_PRESET={options.preset}")
    print(f"QR_HTTP_URL={simulator.url}")
    if simulator.protocol.key_header:
        print(f"# The file that QR_HTTP_KEY_FILE names has to hold: {options.key}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
