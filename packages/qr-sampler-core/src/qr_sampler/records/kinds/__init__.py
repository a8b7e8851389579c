# SPDX-License-Identifier: Apache-2.0
"""What is kept of every token, of every wasted draw, and of the run they belong to."""

from __future__ import annotations

from qr_sampler.records.kinds.others import (
    BypassRecord,
    DiscardRecord,
    EmissionRecord,
    ForcedRecord,
    UnchosenRecord,
    UndecidedRecord,
)
from qr_sampler.records.kinds.record import SCHEMA_VERSION, Record
from qr_sampler.records.kinds.runs import GapRecord, GenesisRecord
from qr_sampler.records.kinds.tokens import TokenSamplingRecord

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
