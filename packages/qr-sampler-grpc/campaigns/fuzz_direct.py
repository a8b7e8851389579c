# SPDX-License-Identifier: Apache-2.0
"""Sends a million broken answers to the client of the direct protocol.

A case is one request and what arrives instead of its answer: the right answer, one with changed,
missing, additional or swapped bytes, one whose numbers are set to their extremes, the answer to
another request, or noise. It goes through a real socket into the code that serves every draw, half
of the time on a connection that knows the device already. A separate reader, written from
``PROTOCOL.md`` alone, says what has to come out: just these bytes, or no draw.

    python campaigns/fuzz_direct.py --cases 1000000 --processes 2
"""

from __future__ import annotations

import random
import socket
import sys
from contextlib import closing
from dataclasses import dataclass

from fuzzing import Fuzzer

from qr_sampler_grpc.direct.connection import Connection, DirectAnswer
from qr_sampler_grpc.direct.endpoint import Endpoint
from qr_sampler_grpc.direct.frame import encode_answer
from qr_sampler_grpc.direct.status import Status
from qr_sampler_grpc.link import LinkFailure

NO_TIME_LEFT = 0
"""Nothing that is not there yet is waited for."""

LENGTH_FIELDS = ((7, 1), (24, 4), (28, 1), (29, 1), (30, 2))
NUMBER_FIELDS = ((0, 4), (4, 1), (5, 1), (6, 1), (8, 8), (16, 8), *LENGTH_FIELDS)


@dataclass(frozen=True)
class Case:
    """One request and what arrives."""

    kind: str
    number: int
    size: int
    commitment: bytes
    known_device: bytes
    arrives: bytes

    def __str__(self) -> str:
        asked = f"{self.size} bytes as number {self.number}, commitment {self.commitment.hex()!r}"
        return f"{self.kind}, {asked}, device {self.known_device!r}: {self.arrives[:150].hex()}"


class Paired(Endpoint):
    """Leads to the other end of a socket pair."""

    def connect(self, deadline_ns: int) -> socket.socket:
        """Returns the end that was put in the place of the path."""
        return socket.socket(fileno=int(self.path))


class Answered(Connection):
    """A connection on which the answer arrives as soon as the request has left."""

    def answer_with(self, far_end: socket.socket, arrives: bytes) -> None:
        """Sets what arrives, and where it is sent."""
        self._far_end, self._arrives = far_end, arrives

    def _send(self, frames: bytes, deadline: int) -> None:
        super()._send(frames, deadline)
        self._far_end.sendall(self._arrives)


def right_answer(rng: random.Random, number: int, size: int, commitment: bytes) -> bytes:
    """Returns an answer that has to be accepted."""
    head = encode_answer(
        number,
        generation_timestamp_ns=rng.choice((0, 1, rng.getrandbits(63))),
        device_id=rng.choice((b"", b"dev", "gerät".encode())),
        commitment=rng.choice((commitment, b"")),
        signature=rng.choice((b"", b"", rng.randbytes(64))),
        data_length=size,
    )
    return head + rng.randbytes(size)


def refusal(rng: random.Random, number: int) -> bytes:
    """Returns an answer that refuses."""
    status = rng.choice([one for one in Status if one])
    return encode_answer(rng.choice((number, 0)), status, words="not now" * rng.randrange(3))


def mutated(rng: random.Random, frame: bytes) -> tuple[str, bytes]:
    """Returns what became of *frame*, and how."""
    kind = rng.choice(("intact", "flip", "cut", "extend", "field", "swap", "noise", "insert"))
    broken = bytearray(frame)
    place = rng.randrange(len(broken))
    if kind == "flip":
        for _ in range(rng.randrange(1, 4)):
            # The first bytes decide more than the data.
            broken[rng.randrange(min(len(broken), 48))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del broken[place:]
    elif kind == "extend":
        broken += rng.choice((frame, rng.randbytes(rng.randrange(1, 64))))
    elif kind == "field":
        offset, width = rng.choice(NUMBER_FIELDS)
        extreme = rng.choice((0, 1, 64, 65, 255, 2 ** (8 * width - 1), 2 ** (8 * width) - 1))
        broken[offset : offset + width] = (extreme % 256**width).to_bytes(width, "big")
    elif kind == "swap":
        broken = broken[place:] + broken[:place]
    elif kind == "noise":
        broken = bytearray(rng.randbytes(rng.randrange(200)))
    elif kind == "insert":
        broken[place:place] = rng.randbytes(rng.randrange(1, 9))
    return kind, bytes(broken)


def make_case(rng: random.Random) -> Case:
    """Returns a case that depends on *rng* alone."""
    number, size = rng.choice((1, 2, rng.randrange(1, 2**63))), rng.choice((1, 7, 64, 700))
    commitment = rng.choice((b"", rng.randbytes(rng.randrange(1, 65))))
    if rng.random() < 0.1:
        frame = refusal(rng, number)
    else:
        other = number if rng.random() < 0.95 else rng.randrange(2**63)
        frame = right_answer(rng, other, size, commitment)
    kind, arrives = mutated(rng, frame)
    known = rng.choice((b"", b"dev", "gerät".encode()))
    return Case(kind, number, size, commitment, known, arrives)


def expected(case: Case) -> bytes | None:
    """Returns the data that has to be accepted, or ``None``: a reader as simple as can be."""
    raw = case.arrives

    def field(offset: int, width: int) -> int:
        return int.from_bytes(raw[offset : offset + width], "big")

    if len(raw) < 32 or raw[:7] != b"QRED\x01\x02\x00" or field(8, 8) != case.number:
        return None
    device, data, commitment, signature, words = (field(*one) for one in LENGTH_FIELDS)
    if data != case.size or commitment > 64 or signature not in (0, 64) or words:
        return None
    echo = raw[32 + device : 32 + device + commitment]
    if case.commitment and echo and echo != case.commitment:
        return None
    try:
        raw[32 : 32 + device].decode()
    except UnicodeDecodeError:
        return None
    start = 32 + device + commitment + signature
    return raw[start : start + data] if len(raw) >= start + data else None


def received(case: Case) -> DirectAnswer | None:
    """Returns what the client makes of the case; ``None`` when it refuses."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with closing(theirs):
        endpoint = Paired(str(ours.detach()), "the fuzzer", None)
        connection = Answered(endpoint, NO_TIME_LEFT)
        connection.answer_with(theirs, case.arrives)
        connection._device_id = case.known_device.decode()  # noqa: SLF001
        connection._raw_device_id = case.known_device  # noqa: SLF001
        try:
            return connection.ask(case.number, case.size, 0, case.commitment, NO_TIME_LEFT)
        except LinkFailure:
            return None
        finally:
            connection.close()


FUZZER = Fuzzer(make_case, expected, received)

if __name__ == "__main__":
    sys.exit(FUZZER.main(__doc__))
