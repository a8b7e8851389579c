# SPDX-License-Identifier: Apache-2.0
"""How lines get to the disk, and what is done when it refuses."""

from __future__ import annotations

from qr_sampler.records.files.continues import Continues
from qr_sampler.records.files.names import ledgers_in
from qr_sampler.records.files.writer import LedgerWriter

__all__ = ["Continues", "LedgerWriter", "ledgers_in"]
