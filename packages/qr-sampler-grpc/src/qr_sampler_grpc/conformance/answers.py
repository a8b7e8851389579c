# SPDX-License-Identifier: Apache-2.0
"""Whether the answers of one call are what its case asks for."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from qr_sampler_grpc.conformance.calls import Exchange
from qr_sampler_grpc.conformance.cases import ExpectedAnswer, SentRequest
from qr_sampler_grpc.conformance.results import NonconformanceError
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyResponse

__all__ = ["answers_of", "parsed"]


def answers_of(done: Exchange) -> list[EntropyResponse]:
    """Returns the answers of a call that ended with OK, one for each request, chunks joined.

    Messages of other services are compared and not returned.

    Raises:
        NonconformanceError: When an answer is not as it must be.
    """
    left = list(done.messages)
    answers = []
    for number, (request, expected) in enumerate(
        zip(done.call.requests, done.call.answers, strict=True), start=1
    ):
        if not left:
            raise NonconformanceError(f"request {number} of {_count(done)} was not answered")
        if expected.data_bytes is None:
            _check_message(left.pop(0), expected)
        else:
            answers.append(_answer(left, request, expected))
    if left:
        raise NonconformanceError(f"{len(left)} messages more than were asked for arrived")
    return answers


def _count(done: Exchange) -> int:
    return len(done.call.requests)


def _check_message(message: bytes, expected: ExpectedAnswer) -> None:
    if expected.message is not None and message != expected.message:
        raise NonconformanceError(
            f"the answer is {message[:64].hex() or 'empty'} instead of {expected.message.hex()}"
        )
    if expected.contains not in message:
        raise NonconformanceError(f"the answer does not mention {expected.contains.decode()}")


def _answer(left: list[bytes], request: SentRequest, expected: ExpectedAnswer) -> EntropyResponse:
    parts = [parsed(left.pop(0))]
    while expected.chunks and left and _size(parts) < (expected.data_bytes or 0):
        parts.append(parsed(left.pop(0)))
    if _size(parts) != expected.data_bytes:
        raise NonconformanceError(f"{_size(parts)} bytes arrived instead of {expected.data_bytes}")
    for part in parts:
        if not part.data:
            raise NonconformanceError("a chunk is empty")
        _check_echoes(part, request)
    whole = EntropyResponse()
    whole.CopyFrom(parts[-1])
    whole.data = b"".join(part.data for part in parts)
    return whole


def _size(parts: Sequence[EntropyResponse]) -> int:
    return sum(len(part.data) for part in parts)


def parsed(message: bytes) -> EntropyResponse:
    """Returns the contents of *message*, read by protobuf's own parser.

    Raises:
        NonconformanceError: When it cannot be read.
    """
    try:
        return EntropyResponse.FromString(message)
    except DecodeError as error:
        raise NonconformanceError(f"the answer is no EntropyResponse ({error})") from error


def _check_echoes(answer: EntropyResponse, request: SentRequest) -> None:
    if answer.sequence_id not in (0, request.sequence_id):
        raise NonconformanceError(
            f"the answer names request {answer.sequence_id} instead of {request.sequence_id}"
        )
    if answer.commitment not in (b"", request.commitment):
        raise NonconformanceError(
            f"the answer repeats the commitment {answer.commitment[:64].hex()} instead of "
            f"{request.commitment.hex() or 'none'}"
        )
