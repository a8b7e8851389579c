# SPDX-License-Identifier: Apache-2.0
"""From entries to the lines of the ledger."""

from __future__ import annotations

from qr_sampler.records.lines.ledger_lines import LedgerLines
from qr_sampler.records.lines.token_run import Line, TokenRun, expanded

__all__ = ["LedgerLines", "Line", "TokenRun", "expanded"]
