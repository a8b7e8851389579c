# SPDX-License-Identifier: Apache-2.0
"""Mean and variance of every numeric field of a run, in one pass over its events."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

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
    """Moments of the fields that are named; values that are missing or not finite do not count.

    Args:
        names: Of the fields, numbers or booleans, which count as 0 and 1.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.fields = {name: FieldSummary() for name in names}
        """By name, in the order given."""

    def add(self, values: Mapping[str, Any]) -> None:
        """Takes the fields of one event in."""
        for name, field in self.fields.items():
            value = values[name]
            if value is not None:
                field.add(value)

    def write(self, file: TextIO) -> None:
        """Writes CSV with the columns field, count, mean and variance."""
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["field", "count", "mean", "variance"])
        for name, field in self.fields.items():
            if not field.count:
                continue
            variance = "" if field.variance is None else repr(field.variance)
            writer.writerow([name, field.count, repr(field.mean), variance])
