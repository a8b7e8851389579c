# SPDX-License-Identifier: Apache-2.0
"""What requests and answers look like on the wire, and what of an answer may be believed."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Final, Protocol

from qr_sampler_grpc.protobuf_fields import (
    FIXED64,
    LENGTH,
    VARINT,
    MalformedMessageError,
    fields_of,
    tagged,
)

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

REQUEST_FIELDS: Final = ("bytes_needed", "sequence_id", "commitment", "accept_chunks")
"""What a request can say."""
ANSWER_FIELDS: Final = MappingProxyType(
    {
        "data": LENGTH,
        "u": FIXED64,
        "sequence_id": VARINT,
        "timestamp_ns": VARINT,
        "timestamp_us": VARINT,
        "device_id": LENGTH,
        "commitment": LENGTH,
        "signature": LENGTH,
    }
)
"""What an answer can say, and the wire type that says it."""

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
    """What a server said, as far as its meaning is known."""

    data: bytes | memoryview
    """The random bytes; their number is not checked yet."""
    sequence_id: int | None = None
    """Name of the request, 0 from a server that does not repeat it; ``None`` where the contract
    has no place for it."""
    device_id: str = ""
    """Identity of the device, when reported."""
    device_timestamp_ns: int | None = None
    """Time of measurement in nanoseconds since the epoch on the server's clock, 1 to 2**63 - 1;
    ``None`` when there is none, or one that is no such time."""
    commitment: bytes | None = None
    """The commitment as it came back; ``None`` where the contract has no place for it."""
    signature: bytes = b""
    """Signature of the answer, when there is one."""


class Wire(Protocol):
    """Turns a question into a message, and a message into an answer."""

    def encode(self, question: Question) -> bytes:
        """Returns the serialised request."""
        ...

    def decode(self, message: bytes) -> Answer:
        """Returns the answer that *message* holds, without a copy of its data.

        Raises:
            UnreadableAnswerError: When it cannot be read.
        """
        ...


class FieldWire:
    """Messages described by the numbers of their fields.

    Services give the same number another meaning (a time where another one has the echo of the
    sequence_id), so only fields that were declared are sent and read. All others are skipped, and
    so are declared ones of another wire type, as protobuf does. Of repeated ones the last counts.

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
        # In the order of their numbers, as protobuf writes them.
        self._request = sorted(request.items(), key=itemgetter(1))
        self._constant = constant
        self._names = {(number, ANSWER_FIELDS[name]): name for name, number in answer.items()}
        self._integrates = "u" in answer
        self._names_requests = "sequence_id" in answer
        self._commits = "commitment" in answer

    def encode(self, question: Question) -> bytes:
        """Returns the declared fields of *question*; absent stands for zero and empty."""
        parts = []
        for name, number in self._request:
            value: int | bytes = getattr(question, name)
            if value:
                parts.append(tagged(number, value))
        parts.append(self._constant)
        return b"".join(parts)

    def decode(self, message: bytes) -> Answer:
        """Returns what the declared fields of *message* say.

        Raises:
            UnreadableAnswerError: When it is no message, or holds no u that is one.
        """
        said: dict[str, int | memoryview] = {}
        device_id = ""
        try:
            for field in fields_of(message):
                name = self._names.get((field.number, field.wire_type))
                if name == "device_id":
                    device_id = _text(field.value)
                elif name:
                    said[name] = field.value
            return Answer(
                data=_encoded_u(said) if self._integrates else _bytes_of(said, "data"),
                sequence_id=_signed(said, "sequence_id") if self._names_requests else None,
                device_id=device_id,
                device_timestamp_ns=_timestamp_ns(said),
                commitment=bytes(_bytes_of(said, "commitment")) if self._commits else None,
                signature=bytes(_bytes_of(said, "signature")),
            )
        except (MalformedMessageError, UnicodeDecodeError) as error:
            raise UnreadableAnswerError(f"the answer is no protobuf message ({error})") from error


def _encoded_u(said: Mapping[str, int | memoryview]) -> bytes:
    """Returns u as the eight bytes of floor(u * 2**64); there is no u outside (0, 1)."""
    value = said.get("u")
    if not isinstance(value, memoryview):
        raise UnreadableAnswerError("the server answered without a draw")
    (u,) = struct.unpack("<d", value)
    if not 0.0 < u < 1.0:
        raise UnreadableAnswerError(f"u={u} is not inside the open interval (0, 1)")
    return int(u * 2.0**64).to_bytes(INTEGRATED_BYTES, "big")


def _text(value: int | memoryview) -> str:
    return "" if isinstance(value, int) else str(value, "utf-8")


def _bytes_of(said: Mapping[str, int | memoryview], name: str) -> bytes | memoryview:
    value = said.get(name, b"")
    return b"" if isinstance(value, int) else value


def _signed(said: Mapping[str, int | memoryview], name: str) -> int:
    value = said.get(name, 0)
    if not isinstance(value, int):
        return 0
    return value - 2**64 if value >= 2**63 else value


def _timestamp_ns(said: Mapping[str, int | memoryview]) -> int | None:
    """Returns the reported time; one that no signature and no record can hold counts as none."""
    nanoseconds = _signed(said, "timestamp_us") * _NS_PER_US or _signed(said, "timestamp_ns")
    return nanoseconds if 0 < nanoseconds <= _MAX_INT64 else None
