# SPDX-License-Identifier: Apache-2.0
"""What is kept of every token, and where it is written."""

from __future__ import annotations

from qr_sampler.records.kinds import (
    SCHEMA_VERSION,
    BypassRecord,
    DiscardRecord,
    EmissionRecord,
    ForcedRecord,
    GapRecord,
    GenesisRecord,
    Record,
    TokenSamplingRecord,
    UnchosenRecord,
    UndecidedRecord,
)

__all__ = [
    "SCHEMA_VERSION",
    "BypassRecord",
    "DiscardRecord",
    "EmissionRecord",
    "ForcedRecord",
    "GapRecord",
    "GenesisRecord",
    "Record",
    "TokenSamplingRecord",
    "UnchosenRecord",
    "UndecidedRecord",
]
