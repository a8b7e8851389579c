# SPDX-License-Identifier: Apache-2.0
"""Sends a million broken answers through what reads the answers of gRPC servers.

A case is one request and the messages that arrive instead of its answer: the right ones, ones with
changed, missing, additional or swapped bytes, two spliced into one, fields of every number and wire
type put together at random, or noise. They go through the decoder of a profile and through what
puts the parts of an answer together, which is all that an answer passes in every mode. Protobuf's
own parser says what has to come out: just these bytes, or a refusal.

    python campaigns/fuzz_answers.py --cases 1000000 --processes 2
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any

from fuzzing import Fuzzer
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from qr_sampler_grpc.proto import entropy_service_pb2, purity_service_pb2, qrng_pb2
from qr_sampler_grpc.protocol.contract import Contract
from qr_sampler_grpc.protocol.wire import Answer, UnreadableAnswerError
from qr_sampler_grpc.transports.base import AnswerParts, Attempt, PreparedRequest, UnfitAnswerError

U_BYTES = 8
"""Length of a uniform number that the server has integrated."""

NAMED = ("qr_entropy", "qr_purity")
"""Profiles whose answers have a place for the name of the request."""


def parser(file: Any, message: str) -> Any:
    """Returns protobuf's class of *message*; no text is read except the identity of the device.

    Protobuf refuses an answer for text that is not UTF-8 anywhere in it; here texts that no profile
    declares are skipped like everything else.
    """
    described = descriptor_pb2.FileDescriptorProto()
    file.DESCRIPTOR.CopyToProto(described)
    for one in described.message_type:
        for field in one.field:
            if field.name in ("purity_label", "integrator"):
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    name = f"{described.package}.{message}"
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


PARSERS = {
    "qr_entropy": parser(entropy_service_pb2, "EntropyResponse"),
    "qrng": parser(qrng_pb2, "RandomResponse"),
    "qr_purity": parser(purity_service_pb2, "DrawResponse"),
}
WIRES = {name: Contract.declared(name, mode="unary").wire for name in PARSERS}


@dataclass(frozen=True)
class Case:
    """One request and what arrives."""

    kind: str
    profile: str
    sequence_id: int
    size: int
    in_parts: bool
    messages: tuple[bytes, ...]

    def __str__(self) -> str:
        arrived = " | ".join(message[:100].hex() for message in self.messages)
        asked = f"{self.size} bytes as {self.sequence_id} of {self.profile}"
        return f"{self.kind}, {asked}, in_parts={self.in_parts}: {arrived}"


def varint(value: int, padding: int = 0) -> bytes:
    """Returns *value* as protobuf spells it, and *padding* bytes longer than need be."""
    encoded = bytearray()
    while value > 0x7F or padding:
        encoded.append(value & 0x7F | 0x80)
        padding -= value <= 0x7F
        value >>= 7
    return bytes(encoded) + bytes((value,))


def any_field(rng: random.Random, depth: int = 0) -> bytes:
    """Returns a field of any number and wire type, right or nearly so."""
    paddings = (0,) * 12 + (1, 3, 4, 5, 9)
    number = rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 10, 15, 16, 2**29 - 1, 2**29, 0))
    kind = rng.choice((0, 0, 1, 2, 2, 2, 3, 5, 4, 6, 7) if depth else (0, 0, 1, 2, 2, 2, 3, 5))
    tag = varint(number << 3 | kind, rng.choice(paddings))
    if kind == 0:
        value = rng.choice((0, 1, 2**63, 2**64 - 1, rng.getrandbits(70)))
        return tag + varint(value, rng.choice(paddings))
    if kind == 2:
        payload = rng.choice((b"", b"dev", b"\xed\xa0\x80", rng.randbytes(rng.randrange(20))))
        length = len(payload) + (rng.random() < 0.05)
        return tag + varint(length, rng.choice(paddings)) + payload
    if kind == 3:
        inner = b"".join(any_field(rng, depth + 1) for _ in range(rng.randrange(3) * (depth < 3)))
        return tag + inner + varint((number + (rng.random() < 0.05)) << 3 | 4)
    return tag + rng.randbytes({1: 8, 5: 4}.get(kind, 0))


def right_field(rng: random.Random, number: int, kind: int) -> bytes:
    """Returns a field of the type *kind* of protobuf's descriptors."""
    types = descriptor_pb2.FieldDescriptorProto
    if kind == types.TYPE_DOUBLE:
        return varint(number << 3 | 1) + rng.randbytes(8)
    if kind in (types.TYPE_BYTES, types.TYPE_STRING):
        text = rng.choice((b"dev", "gerät".encode(), b"x" * 64))
        return varint(number << 3 | 2) + varint(len(text)) + text
    return varint(number << 3) + varint(rng.getrandbits(rng.choice((1, 63, 64))))


def right_part(rng: random.Random, profile: str, sequence_id: int, size: int) -> bytes:
    """Returns a message with *size* bytes, or one u."""
    answer = PARSERS[profile]()
    if profile == "qr_purity":
        answer.u = rng.choice((0.5, rng.random(), 5e-324, 1 - 2**-53, 0.0, 1.0, float("nan")))
    else:
        answer.data = rng.randbytes(size)
    if profile in NAMED:
        answer.sequence_id = rng.choice((sequence_id, sequence_id, 0, sequence_id + 1, -1))
    for field in answer.DESCRIPTOR.fields:
        if field.number > 3 and rng.random() < 0.3:
            answer.MergeFromString(right_field(rng, field.number, field.type))
    return bytes(answer.SerializeToString())


def parts_of(rng: random.Random, size: int) -> list[int]:
    """Returns how many bytes come in which message; now and then too many or none."""
    if rng.random() < 0.5:
        return [max(size + rng.choice((0,) * 12 + (1, -1, -size)), 0)]
    cut = rng.randrange(size + 1)
    return [cut, size - cut + rng.choice((0,) * 8 + (1, -1))] if cut < size else [size, 1]


def mutated(rng: random.Random, message: bytes, other: bytes) -> tuple[str, bytes]:
    """Returns what became of *message*, and how."""
    kind = rng.choice(
        ("intact", "intact", "flip", "cut", "splice", "swap", "insert", "noise", "fields", "more")
    )
    broken = bytearray(message)
    place = rng.randrange(len(broken) + 1)
    if kind == "flip":
        for _ in range(rng.randrange(1, 4) if broken else 0):
            broken[rng.randrange(min(len(broken), 40))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del broken[place:]
    elif kind == "splice":
        broken[place:] = other[rng.randrange(len(other) + 1) :]
    elif kind == "swap":
        broken = broken[place:] + broken[:place]
    elif kind == "insert":
        broken[place:place] = rng.randbytes(rng.randrange(1, 9))
    elif kind == "noise":
        broken = bytearray(rng.randbytes(rng.randrange(60)))
    elif kind == "fields":
        broken = bytearray(b"".join(any_field(rng) for _ in range(rng.randrange(6))))
    elif kind == "more":
        broken = bytearray(any_field(rng) + message + any_field(rng))
    return kind, bytes(broken)


def make_case(rng: random.Random) -> Case:
    """Returns a case that depends on *rng* alone."""
    profile = rng.choice(("qr_entropy", "qr_entropy", "qrng", "qr_purity"))
    sequence_id = rng.choice((1, 2, rng.randrange(1, 2**63 - 1)))
    size = U_BYTES if profile == "qr_purity" else rng.choice((1, 3, 20, 700))
    messages = [right_part(rng, profile, sequence_id, one) for one in parts_of(rng, size)]
    other = right_part(rng, rng.choice(tuple(PARSERS)), sequence_id, size)
    victim = rng.randrange(len(messages))
    kind, messages[victim] = mutated(rng, messages[victim], other)
    in_parts = len(messages) > 1 or rng.random() < 0.3
    return Case(kind, profile, sequence_id, size, in_parts, tuple(messages))


def expected_part(case: Case, message: bytes) -> bytes | None:
    """Returns the bytes of one message of a case, or ``None``."""
    try:
        answer = PARSERS[case.profile].FromString(message)
    except DecodeError:
        return None
    if case.profile in NAMED and answer.sequence_id not in (0, case.sequence_id):
        return None
    if case.profile != "qr_purity":
        return bytes(answer.data) or None
    return encoded(answer.u) if 0 < answer.u < 1 else None


def encoded(u: float) -> bytes:
    """Returns the eight bytes of floor(u * 2**64), in exact arithmetic."""
    return floor(Fraction(u) * 2**64).to_bytes(U_BYTES, "big")


def expected(case: Case) -> bytes | None:
    """Returns the data that has to be accepted, or ``None``."""
    data = b""
    for message in case.messages if case.in_parts else case.messages[:1]:
        part = expected_part(case, message)
        if part is None or len(data + part) > case.size:
            return None
        data += part
        if len(data) == case.size:
            return data
    return None


def received(case: Case) -> Answer | None:
    """Returns what the client makes of the case; ``None`` when it refuses."""
    attempt = Attempt(deadline_ns=0)
    parts = AnswerParts(PreparedRequest(case.sequence_id, case.size, b""), attempt)
    decode = WIRES[case.profile].decode
    try:
        if not case.in_parts:
            return parts.add_all(decode(case.messages[0]))
        for message in case.messages:
            if parts.add(decode(message)):
                return parts.whole
    except (UnreadableAnswerError, UnfitAnswerError):
        pass
    return None


FUZZER = Fuzzer(make_case, expected, received)

if __name__ == "__main__":
    sys.exit(FUZZER.main(__doc__))
