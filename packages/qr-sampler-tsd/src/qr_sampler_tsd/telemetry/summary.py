# SPDX-License-Identifier: Apache-2.0
"""Mean and variance of every numeric field of a run, in one pass over its events."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

__all__ = ["FieldSummary", "Summary"]


@dataclass(slots=True)
class FieldSummary:
    """Running moments of one field.

    Welford's method (Knuth, The Art of Computer Programming, volume 2, section 4.2.2), which does
    not lose the variance of large values.

    Examples:
        >>> field = FieldSummary()
        >>> for value in (1e9 + 1, 1e9 + 2, 1e9 + 3):
        ...     field.add(value)
        >>> field.count, field.mean - 1e9, field.variance
        (3, 2.0, 1.0)
    """

    count: int = 0
    """Values so far."""
    mean: float = 0.0
    """Their mean."""
    _squares: float = 0.0

    def add(self, value: float) -> None:
        """Takes one finite value in."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self._squares += distance * (value - self.mean)

    @property
    def variance(self) -> float | None:
        """The unbiased variance, ``None`` for fewer than two values."""
        return self._squares / (self.count - 1) if self.count > 1 else None


class Summary:
    """Moments of all numeric fields; numbers that are missing or not finite do not count."""

    def __init__(self) -> None:
        self.fields: dict[str, FieldSummary] = {}
        """By name, in the order of appearance."""

    def add(self, values: Mapping[str, object]) -> None:
        """Takes the fields of one event in; booleans count as 0 and 1."""
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self.fields.setdefault(name, FieldSummary()).add(float(value))

    def write(self, file: TextIO) -> None:
        """Writes CSV with the columns field, count, mean and variance."""
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["field", "count", "mean", "variance"])
        for name, field in self.fields.items():
            variance = "" if field.variance is None else repr(field.variance)
            writer.writerow([name, field.count, repr(field.mean), variance])
