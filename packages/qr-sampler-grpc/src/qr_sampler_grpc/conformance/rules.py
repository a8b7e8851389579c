# SPDX-License-Identifier: Apache-2.0
"""What the answers of a conformance case must satisfy together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from qr_sampler_grpc.conformance.calls import Exchange
from qr_sampler_grpc.conformance.cases import SentRequest
from qr_sampler_grpc.conformance.results import NonconformanceError
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyResponse
from qr_sampler_grpc.protocol.attestation import VerificationKey, signed_message, signed_record

__all__ = ["RULES", "Answered", "clock_offset_ns"]

Answered = tuple[Exchange, EntropyResponse]
"""A call with the answer to one of its requests."""

_TELLING_BYTES: Final = 16
"""Shorter answers may be equal by chance."""
_SIGNATURE_BYTES: Final = 64
_CLOCK_TOLERANCE_NS: Final = 5_000_000
"""Stamps of a coarse clock are early by its resolution."""
_NS_PER_MS: Final = 1e6

Rule = Callable[[Sequence[Answered], VerificationKey | None], str]


def clock_offset_ns(stamps: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """Returns between what the clock of a server is ahead of this machine's, in nanoseconds.

    A stamp that was made between request and answer bounds the offset from both sides. No offset
    fits all of them when the first number returned exceeds the second: some stamp was not.

    Args:
        stamps: One or more of: time before the request, stamp of the server, time after the answer.

    Examples:
        >>> clock_offset_ns([(0, 105, 10), (50, 153, 60)])
        (95, 103)
    """
    lowest = max(stamp - after for _, stamp, after in stamps)
    highest = min(stamp - before for before, stamp, _ in stamps)
    return lowest, highest


def _answers_differ(answered: Sequence[Answered], _key: VerificationKey | None) -> str:
    telling = [answer.data for _, answer in answered if len(answer.data) >= _TELLING_BYTES]
    if len(set(telling)) < len(telling):
        raise NonconformanceError("two answers hold the same bytes")
    return ""


def _one_clock_offset(answered: Sequence[Answered], _key: VerificationKey | None) -> str:
    stamps = [
        (done.sent_ns, answer.generation_timestamp_ns, done.received_ns)
        for done, answer in answered
    ]
    lowest, highest = clock_offset_ns(stamps)
    if lowest > highest + _CLOCK_TOLERANCE_NS:
        raise NonconformanceError(
            f"a stamp lies {(lowest - highest) / _NS_PER_MS:.1f} ms outside of request and answer"
        )
    middle = (lowest + highest) / 2
    return f"the server's clock is {middle / _NS_PER_MS:+.1f} ms ahead"


def _signed(answered: Sequence[Answered], key: VerificationKey | None) -> str:
    for done, answer in answered:
        if len(answer.signature) != _SIGNATURE_BYTES:
            raise NonconformanceError(f"the signature has {len(answer.signature)} bytes, not 64")
        (request,) = done.call.requests
        message = signed_message(
            sequence_id=request.sequence_id,
            generation_timestamp_ns=answer.generation_timestamp_ns,
            device_id=answer.device_id,
            commitment=request.commitment,
            data=answer.data,
        )
        if key is not None and not key.verifies(answer.signature, message):
            raise NonconformanceError("the signature is not that of the public key")
        _check_record_signature(request, answer, key)
    return "not verified: no public key was given" if key is None else "verified"


def _check_record_signature(
    request: SentRequest, answer: EntropyResponse, key: VerificationKey | None
) -> None:
    """Checks the signature for records, which a server may leave out."""
    signature = answer.record_signature
    if not signature:
        return
    if len(signature) != _SIGNATURE_BYTES:
        raise NonconformanceError(f"the signature for records has {len(signature)} bytes, not 64")
    message = signed_record(
        sequence_id=request.sequence_id,
        generation_timestamp_ns=answer.generation_timestamp_ns,
        device_id=answer.device_id,
        commitment=request.commitment,
        data_sha256=hashlib.sha256(answer.data).digest(),
    )
    if key is not None and not key.verifies(signature, message):
        raise NonconformanceError("the signature for records is not that of the public key")


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "answers_differ": _answers_differ,
        "one_clock_offset": _one_clock_offset,
        "signed": _signed,
    }
)
"""Each raises :class:`NonconformanceError` when it is violated, and returns its findings."""
