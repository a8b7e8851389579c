# SPDX-License-Identifier: Apache-2.0
"""The empirical law of numbers in (0, 1): every one of them while they are few, then fine bins."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import checked_numbers

__all__ = ["EmpiricalLaw"]

_KEPT: Final = 2**17
_CELLS: Final = 2**20


class EmpiricalLaw:
    """The empirical distribution function of numbers in the open interval (0, 1).

    Up to *keep* numbers all are kept and statistics are exact. Beyond that they are counted in
    equal cells, 8 MiB of them, at whose edges the function is still exact. Between edges it strays
    from a straight line by about sqrt(2**-20 / n), a thousandth of what D is.

    Args:
        keep: How many numbers are kept before they are only counted.
        cells: Number of cells, a power of two of at least 128.

    Examples:
        >>> law = EmpiricalLaw()
        >>> law.add([0.25, 0.75])
        >>> law.n
        2
    """

    def __init__(self, *, keep: int = _KEPT, cells: int = _CELLS) -> None:
        self.n = 0
        """Number of numbers."""
        self._keep, self._size = keep, cells
        self._kept: list[NDArray[np.float64]] = []
        self._cells: NDArray[np.int64] | None = None

    def add(self, values: ArrayLike) -> None:
        """Adds a chunk. Shape ``(B,)``.

        Raises:
            ConfigError: When a number is not inside (0, 1).
        """
        numbers = checked_numbers(values)
        if not numbers.size:
            return
        if not (numbers.min() > 0.0 and numbers.max() < 1.0):
            raise ConfigError(
                f"values from {numbers.min()} to {numbers.max()}: the law is one of numbers inside "
                "(0, 1); give u, or the distribution function of a statistic"
            )
        self.n += numbers.size
        if self._cells is None and self.n <= self._keep:
            self._kept.append(numbers.copy())
            return
        self._count(numbers)

    @property
    def is_exact(self) -> bool:
        """Whether every number is kept."""
        return self._cells is None

    def sorted(self) -> NDArray[np.float64]:
        """Returns all numbers in ascending order, while :attr:`is_exact`."""
        if self._cells is not None:
            raise ConfigError(f"{self.n} numbers were counted, not kept; use counts()")
        return np.sort(np.concatenate(self._kept)) if self._kept else np.empty(0)

    def counts(self) -> NDArray[np.int64]:
        """Returns how many numbers lie in each of the equal cells."""
        if self._cells is not None:
            return self._cells
        counts: NDArray[np.int64] = np.bincount(self._cells_of(self.sorted()), minlength=self._size)
        return counts

    def share_below(self, x: float) -> float:
        """Returns the share of numbers below *x*, exact at the edges of cells."""
        if self._cells is None:
            return int(np.searchsorted(self.sorted(), x)) / self.n
        return int(self._cells[: round(x * self._size)].sum()) / self.n

    def _count(self, numbers: NDArray[np.float64]) -> None:
        if self._cells is None:
            self._cells = np.zeros(self._size, dtype=np.int64)
            earlier, self._kept = self._kept, []
            for chunk in earlier:
                self._count(chunk)
        # A small chunk would pay for all cells if it were counted into a table of its own.
        if numbers.size < self._size // 16:
            np.add.at(self._cells, self._cells_of(numbers), 1)
        else:
            self._cells += np.bincount(self._cells_of(numbers), minlength=self._size)

    def _cells_of(self, numbers: NDArray[np.float64]) -> NDArray[np.int64]:
        # The product with a power of two is exact.
        return (numbers * self._size).astype(np.int64)
