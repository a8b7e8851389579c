# SPDX-License-Identifier: Apache-2.0
"""Answers on their way to gRPC, serialised without superfluous copies of their data.

A protobuf message takes a copy of the data when it is made, and others while it is serialised,
which for a large answer costs more than all the rest. Here the data stays where the device has put
it until the message is joined, once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyResponse
from qr_sampler_grpc.protocol.protobuf_fields import length_prefix, tagged

__all__ = ["Answer", "serialised"]

_NUMBERS: Final = {
    name: field.number for name, field in EntropyResponse.DESCRIPTOR.fields_by_name.items()
}


class Answer(NamedTuple):
    """An ``EntropyResponse``, with the meaning of each field given there."""

    data: bytes | memoryview
    sequence_id: int = 0
    generation_timestamp_ns: int = 0
    device_id: str = ""
    commitment: bytes = b""
    signature: bytes = b""


def serialised(answer: Answer) -> bytes:
    """Returns the message exactly as protobuf would write it.

    Examples:
        >>> serialised(Answer(b"ab", sequence_id=3)).hex()
        '0a0261621003'
    """
    parts: list[bytes | memoryview] = []
    if answer.data:
        # The first field; in the order of their numbers, as protobuf writes them.
        parts += length_prefix(_NUMBERS["data"], len(answer.data)), answer.data
    for number, value in (
        (_NUMBERS["sequence_id"], answer.sequence_id),
        (_NUMBERS["generation_timestamp_ns"], answer.generation_timestamp_ns),
        (_NUMBERS["device_id"], answer.device_id.encode()),
        (_NUMBERS["commitment"], answer.commitment),
        (_NUMBERS["signature"], answer.signature),
    ):
        if value:
            parts.append(tagged(number, value))
    return b"".join(parts)
