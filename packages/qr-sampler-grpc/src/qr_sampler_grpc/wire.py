# SPDX-License-Identifier: Apache-2.0
"""What requests and answers look like on the wire, and what of an answer may be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from qr_sampler_grpc.proto.bytes_only_pb2 import BytesRequest, BytesResponse
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse

__all__ = [
    "Answer",
    "BytesOnlyWire",
    "EntropyServiceWire",
    "UnreadableAnswerError",
    "Wire",
    "wire_for",
]

_ENTROPY_SERVICE: Final = "/qr_entropy.EntropyService/"


class UnreadableAnswerError(ValueError):
    """An answer is not of the expected shape or belongs to another request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said, as far as its meaning is known."""

    data: bytes
    """The random bytes; their number is not checked yet."""
    device_id: str = ""
    """Identity of the device, when reported."""
    device_timestamp_ns: int | None = None
    """Time of measurement in nanoseconds since the epoch on the server's clock, when reported."""


class Wire(Protocol):
    """Turns a request into bytes, and bytes into an answer."""

    def encode(self, bytes_needed: int, sequence_id: int) -> bytes:
        """Returns the serialised request.

        Args:
            bytes_needed: Number of bytes to ask for, 1 to 2**31 - 1.
            sequence_id: Name of the request, greater than zero.
        """
        ...

    def decode(self, message: bytes, sequence_id: int) -> Answer:
        """Returns the answer that *message* holds.

        Raises:
            UnreadableAnswerError: When it cannot be read or answers another request.
        """
        ...


class EntropyServiceWire:
    """The contract of ``proto/entropy_service.proto``."""

    def encode(self, bytes_needed: int, sequence_id: int) -> bytes:
        """Returns a serialised ``EntropyRequest``."""
        request = EntropyRequest(bytes_needed=bytes_needed, sequence_id=sequence_id)
        return request.SerializeToString()

    def decode(self, message: bytes, sequence_id: int) -> Answer:
        """Returns the answer; a server that echoes no sequence_id (0) is believed."""
        try:
            response = EntropyResponse.FromString(message)
        except DecodeError as error:
            raise UnreadableAnswerError(f"the answer is no EntropyResponse ({error})") from error
        if response.sequence_id not in (0, sequence_id):
            raise UnreadableAnswerError(
                f"the answer names request {response.sequence_id}, but {sequence_id} was sent"
            )
        return Answer(
            data=response.data,
            device_id=response.device_id,
            device_timestamp_ns=response.generation_timestamp_ns or None,
        )


class BytesOnlyWire:
    """The least that methods of other services have in common: a count goes out, bytes come back.

    Other services give fields 2 and up another meaning (a time where ours has the echo of the
    sequence_id, a device's name where ours has a time), so none is sent and none is interpreted.
    Nothing is lost by that: a unary call cannot receive the answer to another one.
    """

    def encode(self, bytes_needed: int, sequence_id: int) -> bytes:
        """Returns a serialised request with field 1 alone; *sequence_id* is not sent."""
        return BytesRequest(bytes_needed=bytes_needed).SerializeToString()

    def decode(self, message: bytes, sequence_id: int) -> Answer:
        """Returns the bytes of field 1; every other field is skipped whatever its type."""
        try:
            return Answer(data=BytesResponse.FromString(message).data)
        except DecodeError as error:
            raise UnreadableAnswerError(f"the answer is no protobuf message ({error})") from error


def wire_for(method_path: str) -> Wire:
    """Returns our own contract for a method of ``qr_entropy.EntropyService``, else bytes alone."""
    if method_path.startswith(_ENTROPY_SERVICE):
        return EntropyServiceWire()
    return BytesOnlyWire()
