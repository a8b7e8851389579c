# SPDX-License-Identifier: Apache-2.0
"""End with status 0 if an entropy server reports over grpc.health.v1 that it is serving.

    python health_check.py unix:///run/qr-sampler/entropy.sock
    python health_check.py --wait 60 127.0.0.1:50051

Asks for no API key and draws nothing, so it can be repeated as often as one likes.
"""

from __future__ import annotations

import argparse
import sys
import time

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

ANSWER_TIMEOUT_S = 3.0
PAUSE_S = 0.2


def problem_at(address: str) -> str:
    """Return why the server at `address` does not serve, or nothing if it does."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=ANSWER_TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    if answer.status == HealthCheckResponse.SERVING:
        return ""
    return f"the server reports {HealthCheckResponse.ServingStatus.Name(answer.status)}"


def main() -> int:
    """Ask once, or until the server serves or the time is up."""
    parser = argparse.ArgumentParser(description="Ask an entropy server whether it is serving.")
    parser.add_argument("address", help="host:port or unix:///path")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="go on asking for so long"
    )
    options = parser.parse_args()
    deadline = time.monotonic() + options.wait
    while problem := problem_at(options.address):
        if time.monotonic() >= deadline:
            print(f"{options.address}: {problem}", file=sys.stderr)
            return 1
        time.sleep(PAUSE_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
