# SPDX-License-Identifier: Apache-2.0
"""Sends a million broken answers to the client of the direct protocol.

A case is one request and what arrives instead of its answer: the right answer, one with changed,
missing, additional or swapped bytes, one whose numbers are set to their extremes, the answer to
another request, or noise, with or without a key, in both versions. It goes through a real socket
into the code that serves every draw, half of the time on a connection that knows the device
already. A separate reader, written from ``PROTOCOL.md`` alone, says what has to come out: just
these bytes, no draw, or the same request in the first version.

    python campaigns/fuzz_direct.py --cases 1000000 --processes 2
"""

from __future__ import annotations

import hashlib
import random
import socket
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import cast

from fuzzing import Fuzzer

from qr_sampler_grpc.direct.connection import Connection, DirectAnswer, OlderServerError
from qr_sampler_grpc.direct.endpoint import Endpoint
from qr_sampler_grpc.direct.frame import encode_answer
from qr_sampler_grpc.direct.status import Status
from qr_sampler_grpc.link import LinkFailure
from qr_sampler_grpc.protocol.attestation import VerificationKey, signed_message, signed_record

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
    version: int
    has_key: bool
    arrives: bytes

    def __str__(self) -> str:
        asked = f"{self.size} bytes as number {self.number}, commitment {self.commitment.hex()!r}"
        spoken = f"version {self.version}, {'with a' if self.has_key else 'no'} key"
        known = f"device {self.known_device!r}"
        return f"{self.kind}, {asked}, {spoken}, {known}: {self.arrives[:150].hex()}"


class Digests:
    """A key whose signature of a message is its SHA-512, which is as long and as fragile."""

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Returns whether *signature* is that of *message*."""
        return signature == hashlib.sha512(message).digest()


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


def right_answer(
    rng: random.Random, number: int, size: int, commitment: bytes, version: int
) -> bytes:
    """Returns an answer that has to be accepted, whether there is a key or not."""
    data = rng.randbytes(size)
    device = rng.choice(("", "dev", "gerät"))
    echo, time_ns = rng.choice((commitment, b"")), rng.choice((0, 1, rng.getrandbits(63)))
    if version == 1:
        message = signed_message(
            sequence_id=number,
            generation_timestamp_ns=time_ns,
            device_id=device,
            commitment=echo,
            data=data,
        )
    else:
        message = signed_record(
            sequence_id=number,
            generation_timestamp_ns=time_ns,
            device_id=device,
            commitment=echo,
            data_sha256=hashlib.sha256(data).digest(),
        )
    head = encode_answer(
        number,
        generation_timestamp_ns=time_ns,
        device_id=device.encode(),
        commitment=echo,
        signature=hashlib.sha512(message).digest(),
        data_length=size,
        version=version,
    )
    return head + data


def unsigned(rng: random.Random, signed: bytes) -> bytes:
    """Returns an answer without its signature, or with a wrong one."""
    start = 32 + signed[7] + signed[28]
    if rng.random() < 0.5:
        return signed[:start] + rng.randbytes(64) + signed[start + 64 :]
    return signed[:29] + b"\0" + signed[30:start] + signed[start + 64 :]


def refusal(rng: random.Random, number: int, version: int) -> bytes:
    """Returns an answer that refuses."""
    # Half of them that of a server that does not know the second version.
    status = rng.choice((Status.UNREADABLE, rng.choice([one for one in Status if one])))
    spoken = rng.choice((1, version))
    words = "not now" * rng.randrange(3)
    return encode_answer(rng.choice((number, 0)), status, words=words, version=spoken)


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
    version, has_key = rng.choice(((1, False), (1, False), (1, True), (2, True)))
    if rng.random() < 0.1:
        frame = refusal(rng, number, version)
    else:
        other = number if rng.random() < 0.95 else rng.randrange(2**63)
        spoken = version if rng.random() < 0.95 else 3 - version
        frame = right_answer(rng, other, size, commitment, spoken)
        if rng.random() < (0.05 if has_key else 0.6):
            frame = unsigned(rng, frame)
    kind, arrives = mutated(rng, frame)
    known = rng.choice((b"", b"dev", "gerät".encode()))
    return Case(kind, number, size, commitment, known, version, has_key, arrives)


def expected(case: Case) -> bytes | None:
    """Returns the data that has to be accepted, or ``None``: a reader as simple as can be."""
    raw = case.arrives

    def field(offset: int, width: int) -> int:
        return int.from_bytes(raw[offset : offset + width], "big")

    start = b"QRED" + bytes((case.version, 2, 0))
    if len(raw) < 32 or raw[:7] != start or field(8, 8) != case.number:
        return None
    device, size, commitment, signature, words = (field(*one) for one in LENGTH_FIELDS)
    if size != case.size or commitment > 64 or signature not in (0, 64) or words:
        return None
    text = 32 + device + commitment + signature
    if len(raw) < text + size:
        return None
    identity, echo = raw[32 : 32 + device], raw[32 + device : 32 + device + commitment]
    if (case.commitment and echo and echo != case.commitment) or not is_text(identity):
        return None
    data = raw[text : text + size]
    if case.has_key:
        last = data if case.version == 1 else hashlib.sha256(data).digest()
        preamble = b"qr-entropy-v%d: " % case.version
        lengths = device.to_bytes(4, "big"), commitment.to_bytes(4, "big")
        message = preamble + raw[8:24] + lengths[0] + identity + lengths[1] + echo + last
        if raw[text - signature : text] != hashlib.sha512(message).digest():
            return None
    return data


def is_text(raw: bytes) -> bool:
    """Returns whether *raw* is UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_asked_again(case: Case) -> bool:
    """Returns whether the server says that it knows the first version alone."""
    raw = case.arrives
    if case.version == 1 or len(raw) < 32 or raw[:7] != b"QRED\x01\x02\x07":
        return False
    device, size, commitment, signature, words = (
        int.from_bytes(raw[offset : offset + width], "big") for offset, width in LENGTH_FIELDS
    )
    if any(raw[8:16]) or size or commitment > 64 or signature not in (0, 64) or words > 1024:
        return False
    whole = 32 + device + commitment + signature + words
    return len(raw) >= whole and is_text(raw[32 : 32 + device])


def received(case: Case) -> DirectAnswer | None:
    """Returns what the client makes of the case; ``None`` when it refuses."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with closing(theirs):
        key = cast("VerificationKey", Digests()) if case.has_key else None
        endpoint = Paired(str(ours.detach()), "the fuzzer", key)
        connection = Answered(endpoint, NO_TIME_LEFT, case.version)
        connection.answer_with(theirs, case.arrives)
        connection._device_id = case.known_device.decode()  # noqa: SLF001
        connection._raw_device_id = case.known_device  # noqa: SLF001
        try:
            return connection.ask(case.number, case.size, 0, case.commitment, NO_TIME_LEFT)
        except (LinkFailure, OlderServerError) as error:
            again = isinstance(error, OlderServerError)
            # No answer has no bytes, which is wrong whatever was due.
            return None if again == is_asked_again(case) else DirectAnswer(b"", "", 0, None, None)
        finally:
            connection.close()


FUZZER = Fuzzer(make_case, expected, received)

if __name__ == "__main__":
    sys.exit(FUZZER.main(__doc__))
