# SPDX-License-Identifier: Apache-2.0
"""Whether the answers to one draw can be trusted: their echo of the commitment, their signature."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from qr_sampler_grpc.protocol.attestation import VerificationKey, signed_message, signed_record
from qr_sampler_grpc.protocol.wire import Answer
from qr_sampler_grpc.transports.base import PreparedRequest

__all__ = ["AnswerCheck", "UntrustedAnswerError"]


class UntrustedAnswerError(Exception):
    """An answer was made for another commitment, or is not signed with the expected key."""


class AnswerCheck:
    """Checks the answers of one draw.

    A signature counts only if it covers the name and the commitment that were sent, whatever of
    them the answer repeats: one that covers neither could have been made for any other request.

    Args:
        commitment: What was sent along; empty when nothing was.
        key: Whose signature every answer must have; ``None`` checks none.
    """

    def __init__(self, commitment: bytes, key: VerificationKey | None) -> None:
        self.commitment = commitment
        self._key = key
        self.echoed: bool | None = None
        """Whether every answer repeated the commitment; ``None`` when there was none."""
        self.verified: bool | None = None
        """Whether every answer was signed with the key; ``None`` when there is none."""
        self.signature = b""
        """The signature of the only answer, the one for records if it has both; empty if it has
        none, or there are several."""
        self.sequence_id: int | None = None
        """The number of the request, if records alone can verify the signature with it."""

    def apply(self, requests: Sequence[PreparedRequest], answers: Sequence[Answer]) -> None:
        """Checks all *answers*.

        Raises:
            UntrustedAnswerError: When one repeats another commitment, or is not signed as it should
                be. One that repeats none comes from a server that does not know of commitments.
        """
        if self.commitment:
            echoes = [answer.commitment or b"" for answer in answers]
            if any(echo not in (b"", self.commitment) for echo in echoes):
                raise UntrustedAnswerError("the answer repeats another commitment than was sent")
            self.echoed = all(echoes)
        if self._key is not None:
            for request, answer in zip(requests, answers, strict=True):
                self._check_signature(self._key, request, answer)
            self.verified = True
        if len(answers) == 1:
            (answer,), (request,) = answers, requests
            self.signature = answer.record_signature or answer.signature
            # A server that does not return the commitment has not signed it.
            if answer.record_signature and self.echoed is not False:
                self.sequence_id = request.sequence_id

    def _check_signature(
        self, key: VerificationKey, request: PreparedRequest, answer: Answer
    ) -> None:
        signature = answer.record_signature or answer.signature
        if not signature:
            raise UntrustedAnswerError(
                "the answer is not signed; remove QR_GRPC_PUBLIC_KEY if the device signs nothing"
            )
        if not key.verifies(signature, self._message(request, answer)):
            raise UntrustedAnswerError(
                "the answer is not signed with the key of QR_GRPC_PUBLIC_KEY; check whose it is"
            )

    def _message(self, request: PreparedRequest, answer: Answer) -> bytes:
        """Returns what has been signed, by the best signature that *answer* has."""
        told: Any = {
            "sequence_id": request.sequence_id,
            "generation_timestamp_ns": answer.device_timestamp_ns or 0,
            "device_id": answer.device_id,
            "commitment": self.commitment,
        }
        if answer.record_signature:
            return signed_record(**told, data_sha256=hashlib.sha256(answer.data).digest())
        return signed_message(**told, data=answer.data)
