# SPDX-License-Identifier: Apache-2.0
"""Answers on their way to gRPC, serialised without superfluous copies of their data.

A protobuf message takes a copy of the data when it is made, and others while it is serialised,
which for a large answer costs more than all the rest (50 times as much for a mebibyte). Here the
data stays where the device has put it until the message is joined, once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyResponse

__all__ = ["ServedAnswer", "serialised"]

_DATA_TAG: Final = EntropyResponse(data=b"-").SerializeToString()[:1]


class ServedAnswer(NamedTuple):
    """An ``EntropyResponse``, with the meaning of each field given there."""

    data: bytes | memoryview
    sequence_id: int = 0
    generation_timestamp_ns: int = 0
    device_id: str = ""
    commitment: bytes = b""
    signature: bytes = b""
    record_signature: bytes = b""


def serialised(answer: ServedAnswer) -> bytes:
    """Returns the message exactly as protobuf would write it.

    Examples:
        >>> serialised(ServedAnswer(b"ab", sequence_id=3)).hex()
        '0a0261621003'
    """
    others = EntropyResponse(
        sequence_id=answer.sequence_id,
        generation_timestamp_ns=answer.generation_timestamp_ns,
        device_id=answer.device_id,
        commitment=answer.commitment,
        signature=answer.signature,
        record_signature=answer.record_signature,
    ).SerializeToString()
    if not answer.data:
        return others
    # The data is field 1, and protobuf writes fields in the order of their numbers. Its length is
    # written like any integer, here that of a field whose tag is left out.
    length = EntropyResponse(sequence_id=len(answer.data)).SerializeToString()[1:]
    return b"".join((_DATA_TAG, length, answer.data, others))
