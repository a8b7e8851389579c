# SPDX-License-Identifier: Apache-2.0
"""The types of single fields, with their bounds."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

__all__ = [
    "LARGEST",
    "AnyId",
    "Blind",
    "Count",
    "Digest",
    "DigestOrEmpty",
    "Nanoseconds",
    "Probability",
    "SignedNanoseconds",
    "Uniform",
]

LARGEST: Final = 2**63 - 1
"""Largest whole number of a ledger: what eight bytes hold with a sign."""

Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""A number of things, or the index of one."""

Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""A time, or a duration."""

SignedNanoseconds = Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
"""A time on a clock that may begin anywhere."""

AnyId = Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
"""What a request calls a token; the model need not have it."""

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
"""A SHA-256 digest, hexadecimal."""

DigestOrEmpty = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$", max_length=64)]
"""The same, or nothing."""

Blind = Annotated[str, msgspec.Meta(pattern="^([A-Za-z0-9_-]{16})?$", max_length=16)]
"""96 random bits, or nothing."""

Uniform = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]
"""A number inside the open unit interval."""

Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
"""A number of the closed unit interval."""
