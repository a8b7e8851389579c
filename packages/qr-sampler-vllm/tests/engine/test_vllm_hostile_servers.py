# SPDX-License-Identifier: Apache-2.0
"""Answers and frames that are made to do harm, inside a running engine."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

HONEST, FIELD_BOMB, GZIP_BOMB, GOAWAY = 64, 65, 66, 67
"""What happens depends on how many bytes a request asks for."""
BOMB_BYTES = 128 * 2**20
PREFACE_BYTES = 24
GOAWAY_FRAME, HTTP_1_1_REQUIRED = 0x7, 0xD
TIMEOUT_MS = 3000
PATIENCE_S = 60.0

SERVE = """
    import resource
    from vllm import SamplingParams
    import qr_sampler_vllm

    llm = engine(max_num_seqs=4)

    def most_mib():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def generate(requests):
        # Returns the tokens, and how long the longest step took.
        for key, extra in requests.items():
            params = SamplingParams(
                max_tokens=task["tokens"],
                allowed_token_ids=list(range(300, 900)),
                extra_args={"qr_request_key": key, **extra},
            )
            llm.llm_engine.add_request(key, "Light is", params)
        found, longest_s = {}, 0.0
        while llm.llm_engine.has_unfinished_requests():
            began = time.monotonic()
            for output in llm.llm_engine.step():
                found[output.request_id] = list(output.outputs[0].token_ids)
            longest_s = max(longest_s, time.monotonic() - began)
        qr_sampler_vllm.flush_records()
        return found, longest_s

    found, honest_s, hostile_s, count = {}, 0.0, {}, 0

    def honest():
        # A connection that was lost takes a moment to come back.
        global honest_s, count
        for attempt in range(60):
            count += 1
            tokens, longest_s = generate({f"honest {count}": {}})
            if len(tokens[f"honest {count}"]) == task["tokens"]:
                honest_s = max(honest_s, longest_s)
                return
            time.sleep(0.5)
        raise AssertionError("never served again")

    for _ in range(3):
        honest()
    before_mib = most_mib()
    for fault, size in task["faults"].items():
        tokens, hostile_s[fault] = generate({
            f"{fault}: user": {"qr_sample_count": size},
            f"{fault}: neighbour": {"qr_entropy_source": "system"},
        })
        found |= tokens
        honest()
    result({
        "found": found, "honest_s": honest_s, "hostile_s": hostile_s,
        "grown_mib": most_mib() - before_mib,
    })
"""


class Relay:
    """Hands HTTP/2 frames on, one by one, and slips in a GOAWAY on demand.

    Args:
        target: Port of the server behind it.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.ending = threading.Event()
        self.sent = 0
        self._relays: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Waits for the connections, which the server behind it has to have ended."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for relay in self._relays:
            relay.join(timeout=PATIENCE_S)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                relay = threading.Thread(target=self._relay, args=(client,), daemon=True)
                self._relays.append(relay)
                relay.start()

    def _relay(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._target))
        with client, server:
            forwards = threading.Thread(target=self._forwards, args=(client, server), daemon=True)
            forwards.start()
            self._backwards(client, server)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            forwards.join()

    def _forwards(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _backwards(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), server.makefile("rb") as incoming:
            while len(header := incoming.read(9)) == 9:
                payload = incoming.read(int.from_bytes(header[:3], "big"))
                if self.ending.is_set():
                    self.ending.clear()
                    client.sendall(goaway(HTTP_1_1_REQUIRED))
                    self.sent += 1
                client.sendall(header + payload)


def goaway(error_code: int) -> bytes:
    """Returns the frame, RFC 9113, sections 4.1 and 6.8; no stream was served."""
    return b"\0\0\x08" + struct.pack(">BBIII", GOAWAY_FRAME, 0, 0, 0, error_code)


class Hostile:
    """A gRPC server that answers as a request's size says, behind a relay."""

    def __init__(self) -> None:
        import grpc

        self._server = grpc.server(ThreadPoolExecutor(8))
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        service = grpc.method_handlers_generic_handler(
            "qr_entropy.EntropyService", {"GetEntropy": handler}
        )
        self._server.add_generic_rpc_handlers((service,))
        self.relay = Relay(self._server.add_insecure_port("127.0.0.1:0"))
        self.asked: list[int] = []
        self._server.start()

    def close(self) -> None:
        """Ends all connections."""
        self._server.stop(None).wait(timeout=PATIENCE_S)
        self.relay.close()

    def _answer(self, message: bytes, context: Any) -> bytes:
        import grpc

        from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse

        asked = EntropyRequest.FromString(message)
        self.asked.append(asked.bytes_needed)
        honest: bytes = EntropyResponse(
            data=os.urandom(asked.bytes_needed), sequence_id=asked.sequence_id
        ).SerializeToString()
        if asked.bytes_needed == FIELD_BOMB:
            # Field 100, a number: three bytes each.
            return honest + b"\xa0\x06\x01" * (BOMB_BYTES // 3)
        if asked.bytes_needed == GZIP_BOMB:
            context.set_compression(grpc.Compression.Gzip)
            return honest + bytes([0xA2, 0x06]) + varint(BOMB_BYTES) + bytes(BOMB_BYTES)
        if asked.bytes_needed == GOAWAY:
            self.relay.ending.set()
        return honest


def varint(value: int) -> bytes:
    """Returns *value* as Protocol Buffers write it."""
    low = []
    while value > 0x7F:
        low.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*low, value])


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.close()


def test_bombs_and_goaways_cost_one_draw_each(
    offline_engine: Callable[[str], Any], hostile: Hostile
) -> None:
    engine = offline_engine("v1")
    faults = {"field bomb": FIELD_BOMB, "gzip bomb": GZIP_BOMB, "goaway": GOAWAY}
    env = {
        "QR_ENTROPY_SOURCE_TYPE": "quantum_grpc",
        "QR_REQUEST_ENTROPY_SOURCES": "system",
        "QR_FALLBACK_MODE": "end_request",
        "QR_GRPC_SERVER_ADDRESS": hostile.relay.address,
        "QR_GRPC_TIMEOUT_MS": str(TIMEOUT_MS),
        "QR_CB_ENABLED": "false",
        "QR_SAMPLE_COUNT": str(HONEST),
    }
    result = engine.result(SERVE, {"faults": faults, "tokens": 6}, env)
    lines = engine.lines()
    for fault, size in faults.items():
        assert size in hostile.asked, fault
        neighbour = records(lines, f"{fault}: neighbour")
        assert [one["kind"] for one in neighbour] == ["token"] * 6, fault
        assert [one["token_id"] for one in neighbour] == result["found"][f"{fault}: neighbour"]
        user = records(lines, f"{fault}: user")
        assert [one["token_id"] for one in user] == result["found"][f"{fault}: user"]
        # gRPC may ask again by itself where a GOAWAY says that a call was not served.
        assert user[-1]["kind"] == "forced" or fault == "goaway", fault
        # The same run tells how long a step takes on this machine while nothing is wrong.
        slack_s = 20 * result["honest_s"]
        assert result["hostile_s"][fault] <= TIMEOUT_MS / 1000 + slack_s, fault
    assert hostile.relay.sent >= 1
    assert result["grown_mib"] < 100


def records(lines: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Returns the records of the tokens of a request."""
    kinds = ("token", "forced")
    return [line for line in lines if line["kind"] in kinds and line["request_key"] == key]
