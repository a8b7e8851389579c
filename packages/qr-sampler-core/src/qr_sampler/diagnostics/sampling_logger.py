# SPDX-License-Identifier: Apache-2.0
"""Per-token log lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Literal

from qr_sampler.records import ForcedRecord, Record, TokenSamplingRecord, UndecidedRecord

__all__ = ["SamplingLogger"]


class SamplingLogger:
    """Writes token records to the standard logger ``qr_sampler`` at level INFO.

    Args:
        level: ``"none"`` is silent, ``"summary"`` writes one short line per token, ``"full"`` the
            whole record as JSON.
    """

    def __init__(self, level: Literal["none", "summary", "full"] = "summary") -> None:
        self.level = level
        self._logger = logging.getLogger("qr_sampler")

    @property
    def enabled(self) -> bool:
        """Whether anything would be logged."""
        return self.level != "none" and self._logger.isEnabledFor(logging.INFO)

    def log(self, records: Iterable[Record]) -> None:
        """Logs the token records among *records*; costs next to nothing while INFO is disabled."""
        if not self.enabled:
            return
        for record in records:
            if isinstance(record, (TokenSamplingRecord, ForcedRecord, UndecidedRecord)):
                self._logger.info("%s", self._line(record))

    def _line(self, record: TokenSamplingRecord | ForcedRecord | UndecidedRecord) -> str:
        if self.level == "full":
            return json.dumps(record.as_dict(), allow_nan=False)
        if isinstance(record, ForcedRecord):
            return (
                f"token {record.token_id} at {record.request_key!r}[{record.position}]: "
                f"FORCED, source={record.source}"
            )
        if isinstance(record, UndecidedRecord):
            return (
                f"token {record.token_id} at {record.request_key!r}[{record.position}]: "
                f"UNDECIDED, {record.reason}"
            )
        return (
            f"token {record.token_id} at {record.request_key!r}[{record.position}]: "
            f"u={record.u:.6f} rank={record.rank} p={record.probability:.3g} "
            f"T={record.temperature:.3g} H={record.entropy_nats:.3g} source={record.source}"
            f"{' FALLBACK' if record.fallback else ''}"
        )
