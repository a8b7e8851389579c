# SPDX-License-Identifier: Apache-2.0
"""The contracts that entropy servers speak: methods, messages and limits, each by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["CUSTOM", "DEFAULT_METHOD_PATH", "PROFILES", "Profile"]

DEFAULT_METHOD_PATH: Final = "/qr_entropy.EntropyService/GetEntropy"
"""The unary method of the wire contract in ``proto/entropy_service.proto``."""

CUSTOM: Final = "custom"
"""The profile whose methods and fields the configuration declares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of a kind of server."""

    method_path: str
    """The unary method."""
    stream_method_path: str = ""
    """The method that streams; empty where there is none."""
    request_fields: Mapping[str, int]
    """Numbers of the request's fields, see :class:`~qr_sampler_grpc.protocol.wire.FieldWire`."""
    answer_fields: Mapping[str, int]
    """Numbers of the answer's fields."""
    max_bytes_per_request: int
    """Largest single request in bytes that every known server of the kind accepts."""
    max_requests_per_minute: int | None = None
    """Quota that is known of the kind; ``None`` where there is none."""
    max_bytes_per_day: int | None = None
    """Quota that is known of the kind; ``None`` where there is none."""


_QR_ENTROPY: Final = Profile(
    method_path=DEFAULT_METHOD_PATH,
    stream_method_path="/qr_entropy.EntropyService/StreamEntropy",
    request_fields=MappingProxyType(
        {"bytes_needed": 1, "sequence_id": 2, "commitment": 3, "accept_chunks": 4}
    ),
    answer_fields=MappingProxyType(
        {
            "data": 1,
            "sequence_id": 2,
            "timestamp_ns": 3,
            "device_id": 4,
            "commitment": 5,
            "signature": 6,
            "record_signature": 7,
        }
    ),
    # The smallest limit of the servers in use.
    max_bytes_per_request=13_312,
)
_QRNG: Final = Profile(
    method_path="/qrng.QuantumRNG/GetRandomBytes",
    request_fields=MappingProxyType({"bytes_needed": 1}),
    answer_fields=MappingProxyType({"data": 1, "timestamp_us": 2, "device_id": 3}),
    # The limits of firefly-1.
    max_bytes_per_request=13_312,
    max_requests_per_minute=500,
    max_bytes_per_day=500_000_000,
)
_QR_PURITY: Final = Profile(
    method_path="/qr_purity.PurityService/GetDraw",
    stream_method_path="/qr_purity.PurityService/StreamDraws",
    request_fields=MappingProxyType({"sequence_id": 1}),
    answer_fields=MappingProxyType({"u": 1, "sequence_id": 3, "timestamp_ns": 4, "device_id": 5}),
    # One answer is one u.
    max_bytes_per_request=8,
)
_CUSTOM: Final = Profile(
    method_path=DEFAULT_METHOD_PATH,
    # What all servers that hand out bytes are assumed to understand.
    request_fields=MappingProxyType({"bytes_needed": 1}),
    answer_fields=MappingProxyType({"data": 1}),
    max_bytes_per_request=13_312,
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {"qr_entropy": _QR_ENTROPY, "qrng": _QRNG, "qr_purity": _QR_PURITY, CUSTOM: _CUSTOM}
)
"""The profiles by name."""
