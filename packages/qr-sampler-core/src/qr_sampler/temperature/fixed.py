# SPDX-License-Identifier: Apache-2.0
"""The same temperature for every token."""

from __future__ import annotations

from typing import ClassVar

from qr_sampler.arrays import FloatArray
from qr_sampler.rows import Rows
from qr_sampler.temperature.base import LogitStatistics, TemperatureStrategy

__all__ = ["FixedTemperatureStrategy"]


class FixedTemperatureStrategy(TemperatureStrategy):
    """Returns ``fixed_temperature`` of each row."""

    reads: ClassVar[frozenset[str]] = frozenset()
    constant: ClassVar[bool] = True

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> FloatArray:
        """Returns the configured temperatures. Shape ``(B,)``."""
        return rows.column("fixed_temperature")
