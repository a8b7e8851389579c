# SPDX-License-Identifier: Apache-2.0
"""An entropy server that fails on command. Run as a script by ``test_vllm_faults.py``.

Every block has a sum of its own, so that the record of a token tells which answer decided it. The
command is the content of a file; the log says of every answer which blocks were in it and what was
wrong with it.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse

BLOCK_BYTES = 64
SLOW_S = 4.0
"""Longer than the client waits."""


def block_of_sum(total: int) -> bytes:
    """Returns a block whose bytes add up to *total*."""
    low, high = divmod(total, BLOCK_BYTES)
    return bytes([low + 1] * high + [low] * (BLOCK_BYTES - high))


class FaultyServer:
    """Answers, or fails, as the file says."""

    def __init__(self, port: int, directory: Path) -> None:
        self._address = f"127.0.0.1:{port}"
        self._command = directory / "command"
        self._log = (directory / "answers").open("a", buffering=1)
        self._sums = itertools.count(4000)
        self._calls = itertools.count()
        self._lock = threading.Lock()
        self._server: Any = None

    def run(self) -> None:
        """Follows the commands until the process is killed."""
        acknowledged = ""
        while True:
            command = self.command()
            if command == "killed" and self._server is not None:
                self._server.stop(None).wait()
                self._server = None
            elif command != "killed" and self._server is None:
                self._start()
            if command != acknowledged:
                self._command.with_name("acknowledged").write_text(command)
                acknowledged = command
            time.sleep(0.01)

    def command(self) -> str:
        """Returns how to fail."""
        return self._command.read_text()

    def _start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8))
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        service = grpc.method_handlers_generic_handler(
            "qr_entropy.EntropyService", {"GetEntropy": handler}
        )
        self._server.add_generic_rpc_handlers((service,))
        self._server.add_insecure_port(self._address)
        self._server.start()

    def _answer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        request, command = EntropyRequest.FromString(message), self.command()
        with self._lock:
            number = next(self._calls)
            sums = [next(self._sums) for _ in range(request.bytes_needed // BLOCK_BYTES)]
        flaps = command == "flapping" and number % 2 == 0
        fault = "" if command in ("good", "flapping") and not flaps else command
        self._log.write(json.dumps({"sums": sums, "fault": fault}) + "\n")
        if flaps:
            context.abort(grpc.StatusCode.UNAVAILABLE, "flapping")
        if command == "slow":
            time.sleep(SLOW_S)
        while command == "hung" and self.command() == "hung":
            time.sleep(0.01)
        return self._message(command, request, b"".join(map(block_of_sum, sums)))

    def _message(self, command: str, request: EntropyRequest, data: bytes) -> bytes:
        if command == "garbage":
            return b"\xff" * 40
        message: bytes = EntropyResponse(
            data=data[:-1] if command == "short" else data,
            sequence_id=request.sequence_id + (command == "wrong id"),
        ).SerializeToString()
        return message


if __name__ == "__main__":
    FaultyServer(int(sys.argv[1]), Path(sys.argv[2])).run()
