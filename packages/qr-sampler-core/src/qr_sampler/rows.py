# SPDX-License-Identifier: Apache-2.0
"""The sampling parameters of a batch, as vectors over its rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qr_sampler._typing import FloatArray, IndexArray
from qr_sampler.settings import SamplingParameters

__all__ = ["Rows"]


class Rows:
    """Parameters of B rows, gathered into columns on first use.

    Build it when the batch changes and keep it while the batch stays the same.

    Examples:
        >>> rows = Rows([SamplingParameters(top_k=5), SamplingParameters(top_k=9)])
        >>> rows.column("top_k")
        array([5., 9.])
    """

    def __init__(self, parameters: Sequence[SamplingParameters]) -> None:
        self.parameters = tuple(parameters)
        self._columns: dict[str, FloatArray] = {}

    def __len__(self) -> int:
        return len(self.parameters)

    def column(self, field: str) -> FloatArray:
        """Returns the numeric *field* of every row. Shape ``(B,)``, float64."""
        if field not in self._columns:
            values = [float(getattr(row, field)) for row in self.parameters]
            self._columns[field] = np.array(values, dtype=np.float64)
        return self._columns[field]

    def groups(self, *fields: str) -> dict[tuple[object, ...], IndexArray]:
        """Returns the row indices that share the values of *fields*, in order of appearance."""
        found: dict[tuple[object, ...], list[int]] = {}
        for index, row in enumerate(self.parameters):
            found.setdefault(tuple(getattr(row, field) for field in fields), []).append(index)
        return {key: np.array(indices, dtype=np.intp) for key, indices in found.items()}

    def take(self, indices: IndexArray) -> Rows:
        """Returns the rows at *indices*, in that order."""
        return Rows([self.parameters[index] for index in indices])
