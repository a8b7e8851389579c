# SPDX-License-Identifier: Apache-2.0
"""Why a device has no bytes for a request, independent of any protocol."""

from __future__ import annotations

from enum import Enum

from qr_sampler.errors import QRSamplerError

__all__ = ["MeasurementRefusedError", "Refusal"]


class Refusal(Enum):
    """Why there is no measurement."""

    MALFORMED = "malformed"
    """This request is never served, however often it is repeated."""
    EXHAUSTED = "exhausted"
    """The account has used up a quota; it recovers with time."""
    TOO_LATE = "too_late"
    """The device was busy until the caller's time was over."""
    ABANDONED = "abandoned"
    """The caller has gone, so nothing was measured."""
    UNAVAILABLE = "unavailable"
    """The device cannot deliver at the moment."""
    DEFECT = "defect"
    """The code that reads the device failed unexpectedly."""


class MeasurementRefusedError(QRSamplerError, RuntimeError):
    """A request was not answered with bytes.

    Attributes:
        kind: What a listener maps to its own status code.
        words: What happened and what to do, without secrets; safe to send to the client.
    """

    def __init__(self, kind: Refusal, words: str) -> None:
        super().__init__(kind, words)
        self.kind = kind
        self.words = words

    def __str__(self) -> str:
        return self.words
