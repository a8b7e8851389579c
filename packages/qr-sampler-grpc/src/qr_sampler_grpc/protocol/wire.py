# SPDX-License-Identifier: Apache-2.0
"""How requests and answers are encoded, and which parts of an answer can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Protocol

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

__all__ = [
    "ANSWER_FIELDS",
    "INTEGRATED_BYTES",
    "REQUEST_FIELDS",
    "Answer",
    "FieldWire",
    "Question",
    "UnreadableAnswerError",
    "Wire",
]

REQUEST_FIELDS: Final = MappingProxyType(
    {
        "bytes_needed": FieldDescriptorProto.TYPE_INT64,
        "sequence_id": FieldDescriptorProto.TYPE_INT64,
        "commitment": FieldDescriptorProto.TYPE_BYTES,
        "accept_chunks": FieldDescriptorProto.TYPE_BOOL,
    }
)
"""What a request can contain, with its protobuf type; integers of any width look alike
on the wire."""
ANSWER_FIELDS: Final = MappingProxyType(
    {
        "data": FieldDescriptorProto.TYPE_BYTES,
        "u": FieldDescriptorProto.TYPE_DOUBLE,
        "sequence_id": FieldDescriptorProto.TYPE_INT64,
        "timestamp_ns": FieldDescriptorProto.TYPE_INT64,
        "timestamp_us": FieldDescriptorProto.TYPE_INT64,
        "device_id": FieldDescriptorProto.TYPE_STRING,
        "commitment": FieldDescriptorProto.TYPE_BYTES,
        "signature": FieldDescriptorProto.TYPE_BYTES,
        "record_signature": FieldDescriptorProto.TYPE_BYTES,
    }
)
"""What an answer can contain, with its protobuf type."""

_TYPES: Final = {**REQUEST_FIELDS, **ANSWER_FIELDS}

INTEGRATED_BYTES: Final = 8
"""Length of a u that the server has integrated, see :class:`FieldWire`."""

_NS_PER_US: Final = 1000
_MAX_INT64: Final = 2**63 - 1


class UnreadableAnswerError(ValueError):
    """An answer that cannot be read, or is not one to the request that was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request before it is encoded."""

    bytes_needed: int
    """Number of bytes to ask for, 1 to 2**31 - 1."""
    sequence_id: int
    """Name of the request, greater than zero."""
    commitment: bytes = b""
    """Digest of what the bytes will decide; empty sends none."""
    accept_chunks: bool = False
    """Whether several messages may make up the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server sent, as far as its meaning is known."""

    data: bytes
    """The random bytes; their number is not checked yet."""
    flaw: str = ""
    """Why the data must not be used although they have arrived; empty when they may."""
    sequence_id: int | None = None
    """Name of the request, 0 from a server that does not repeat it; ``None`` where the contract
    has no place for it."""
    device_id: str = ""
    """Identity of the device, when reported."""
    device_timestamp_ns: int | None = None
    """Time of measurement in nanoseconds since the epoch on the server's clock, 1 to 2**63 - 1;
    ``None`` when there is none, or it is not a valid time."""
    commitment: bytes | None = None
    """The commitment as it came back; ``None`` where the contract has no place for it."""
    signature: bytes = b""
    """Signature of the answer, when there is one."""
    record_signature: bytes = b""
    """Signature of the answer that covers the digest of the data instead of the data, likewise."""


class Wire(Protocol):
    """Turns a question into a message, and a message into an answer."""

    def encode(self, question: Question) -> bytes:
        """Returns the serialised request."""
        ...

    def decode(self, message: bytes) -> Answer:
        """Returns the answer that *message* holds.

        Raises:
            UnreadableAnswerError: When it cannot be read.
        """
        ...


class FieldWire:
    """Messages described by the numbers of their fields.

    Services give the same number another meaning (a time where another one has the echo of the
    sequence_id), so only fields that were declared are sent and read. Protobuf itself writes and
    reads, by message types made of the declared fields: an answer comes from outside, and padding
    in it must not cost a loop in Python.

    Where the server integrates a block itself and answers with the uniform number u, that travels
    on as the eight bytes of the whole number floor(u * 2**64), most significant first. Eight
    uniform bytes of any other source are such a number, too, so a fallback needs no care.

    Args:
        request: Field numbers by what the field says, out of :data:`REQUEST_FIELDS`.
        answer: Field numbers by what the field says, out of :data:`ANSWER_FIELDS`.
        constant: Serialised fields that every request carries.

    Examples:
        >>> wire = FieldWire(request={"bytes_needed": 1}, answer={"data": 1})
        >>> wire.encode(Question(bytes_needed=3, sequence_id=7)).hex()
        '0803'
        >>> bytes(wire.decode(bytes.fromhex("0a03616263")).data)
        b'abc'
    """

    def __init__(
        self, *, request: Mapping[str, int], answer: Mapping[str, int], constant: bytes = b""
    ) -> None:
        self._request_names = tuple(request)
        self._request = _message_type(tuple(request.items()))
        self._constant = constant
        self._answer = _message_type(tuple(answer.items()))
        self._integrates = "u" in answer
        self._names_requests = "sequence_id" in answer
        self._commits = "commitment" in answer

    def encode(self, question: Question) -> bytes:
        """Returns the declared fields of *question*; absent means zero or empty."""
        request = self._request(**{name: getattr(question, name) for name in self._request_names})
        message: bytes = request.SerializeToString()
        return message + self._constant

    def decode(self, message: bytes) -> Answer:
        """Returns the contents of the declared fields of *message*.

        Raises:
            UnreadableAnswerError: When it is no message, or holds no draw.
        """
        try:
            answer = self._answer.FromString(message)
        except (DecodeError, UnicodeDecodeError) as error:
            raise UnreadableAnswerError(f"the answer is no protobuf message ({error})") from error
        data, flaw = _integrated(answer.u) if self._integrates else (answer.data, "")
        return Answer(
            data=data,
            flaw=flaw,
            sequence_id=answer.sequence_id if self._names_requests else None,
            device_id=getattr(answer, "device_id", ""),
            device_timestamp_ns=_timestamp_ns(answer),
            commitment=answer.commitment if self._commits else None,
            signature=getattr(answer, "signature", b""),
            record_signature=getattr(answer, "record_signature", b""),
        )


# Options make their contract anew whenever they are asked for it.
@lru_cache(maxsize=32)
def _message_type(fields: tuple[tuple[str, int], ...]) -> Any:
    """Returns the class of messages with *fields*, given by their names and numbers."""
    file = FileDescriptorProto(name="fields.proto", package="qr_sampler_grpc", syntax="proto3")
    message = file.message_type.add(name="Fields")
    for name, number in fields:
        message.field.add(
            name=name,
            number=number,
            type=_TYPES[name],
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
    # A separate pool: profiles give the same names other numbers.
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("qr_sampler_grpc.Fields"))


def _integrated(u: float) -> tuple[bytes, str]:
    """Returns the eight bytes of floor(u * 2**64), and why they are none of a u in (0, 1).

    Raises:
        UnreadableAnswerError: For zero, which means no draw.
    """
    if not u:
        raise UnreadableAnswerError("the server answered without a draw")
    if not 0.0 < u < 1.0:
        return bytes(INTEGRATED_BYTES), f"u={u} is not inside the open interval (0, 1)"
    return int(u * 2.0**64).to_bytes(INTEGRATED_BYTES, "big"), ""


def _timestamp_ns(answer: Any) -> int | None:
    """Returns the reported time; one that no signature and no record can hold counts as none."""
    nanoseconds: int = getattr(answer, "timestamp_us", 0) * _NS_PER_US or getattr(
        answer, "timestamp_ns", 0
    )
    return nanoseconds if 0 < nanoseconds <= _MAX_INT64 else None
