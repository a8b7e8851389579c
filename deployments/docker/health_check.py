# SPDX-License-Identifier: Apache-2.0
"""End with status 0 if an entropy server reports over grpc.health.v1 that it is serving.

    python health_check.py unix:///run/qr-sampler/entropy.sock
    python health_check.py --wait 60 127.0.0.1:50051
    python health_check.py --tls-ca ca.pem entropy.example:50051

Asks for no API key and draws nothing, so it can be repeated as often as one likes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

ANSWER_TIMEOUT_S = 3.0
PAUSE_S = 0.2


def opened(options: argparse.Namespace) -> grpc.Channel:
    """Return a channel to the server, encrypted where a certificate or an authority is named."""
    files = (options.tls_ca, options.tls_private_key, options.tls_certificate)
    if not any(files):
        return grpc.insecure_channel(options.address)
    contents = [None if file is None else file.read_bytes() for file in files]
    return grpc.secure_channel(options.address, grpc.ssl_channel_credentials(*contents))


def problem_of(options: argparse.Namespace) -> str:
    """Return why the server does not serve, or nothing if it does."""
    with opened(options) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=ANSWER_TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    if answer.status == HealthCheckResponse.SERVING:
        return ""
    return f"the server reports {HealthCheckResponse.ServingStatus.Name(answer.status)}"


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(description="Ask an entropy server whether it is serving.")
    parser.add_argument("address", help="host:port or unix:///path")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="keep asking for this long"
    )
    tls = parser.add_argument_group("a server with TLS")
    tls.add_argument("--tls-ca", type=Path, help="PEM file of who has signed its certificate")
    tls.add_argument("--tls-certificate", type=Path, help="PEM file; where the server asks for one")
    tls.add_argument("--tls-private-key", type=Path, help="PEM file with its key")
    return parser


def main() -> int:
    """Ask once, or until the server serves or the time is up."""
    arguments = parser()
    options = arguments.parse_args()
    if (options.tls_certificate is None) != (options.tls_private_key is None):
        arguments.error("--tls-certificate and --tls-private-key belong together")
    deadline = time.monotonic() + options.wait
    while problem := problem_of(options):
        if time.monotonic() >= deadline:
            print(f"{options.address}: {problem}", file=sys.stderr)
            return 1
        time.sleep(PAUSE_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
