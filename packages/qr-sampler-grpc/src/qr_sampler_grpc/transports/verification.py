# SPDX-License-Identifier: Apache-2.0
"""Whether the answers to one draw can be trusted: their echo of the commitment, their signature."""

from __future__ import annotations

from collections.abc import Sequence

from qr_sampler_grpc.protocol.attestation import VerificationKey, signed_message
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
        """The signature of the only answer; empty if it has none, or there are several."""
        self.sequence_id: int | None = None
        """The number of the request that it covers."""

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
        if len(answers) == 1 and answers[0].signature:
            self.signature, self.sequence_id = answers[0].signature, requests[0].sequence_id

    def _check_signature(
        self, key: VerificationKey, request: PreparedRequest, answer: Answer
    ) -> None:
        if not answer.signature:
            raise UntrustedAnswerError(
                "the answer is not signed; remove QR_GRPC_PUBLIC_KEY if the device signs nothing"
            )
        message = signed_message(
            sequence_id=request.sequence_id,
            generation_timestamp_ns=answer.device_timestamp_ns or 0,
            device_id=answer.device_id,
            commitment=self.commitment,
            data=answer.data,
        )
        if not key.verifies(answer.signature, message):
            raise UntrustedAnswerError(
                "the answer is not signed with the key of QR_GRPC_PUBLIC_KEY; check whose it is"
            )
