# SPDX-License-Identifier: Apache-2.0
"""The sampling parameters of a batch, as vectors over its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler.running_mean import RunningMean
from qr_sampler.settings import SamplingParameters

__all__ = ["RowParameters", "Rows"]

T = TypeVar("T")


class RowParameters:
    """Parameters of B rows, gathered into columns on first use.

    Args:
        parameters: The parameters of the B rows.
    """

    def __init__(self, parameters: Sequence[SamplingParameters]) -> None:
        self.parameters = tuple(parameters)
        self._columns: dict[str, FloatArray] = {}
        self._groups: dict[tuple[str, ...], dict[tuple[object, ...], IndexArray]] = {}
        self._derived: dict[object, Any] = {}

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
        if fields not in self._groups:
            members: dict[tuple[object, ...], list[int]] = {}
            for index, row in enumerate(self.parameters):
                key = tuple(getattr(row, field) for field in fields)
                members.setdefault(key, []).append(index)
            self._groups[fields] = {key: np.array(rows, np.intp) for key, rows in members.items()}
        return self._groups[fields]

    def derived(self, function: Callable[..., T], *arguments: object) -> T:
        """Returns ``function(parameters, *arguments)``, computed once for the same arguments.

        Args:
            function: Is given these parameters. What it returns is shared by all who ask; an array
                becomes read-only.
            *arguments: Hashable.
        """
        key = (function, arguments)
        if key not in self._derived:
            derived = function(self, *arguments)
            if isinstance(derived, np.ndarray):
                derived.flags.writeable = False
            self._derived[key] = derived
        value: T = self._derived[key]
        return value


class Rows:
    """Parameters of B rows, and what their requests remember.

    Build it when the batch changes and keep it while the batch stays the same; what changes with
    every token comes in through :meth:`with_running_entropy`.

    Under speculative decoding a request has several rows in one step, each for the token after the
    one that the row before it decides.

    Args:
        parameters: The parameters of the B rows.
        running_entropy: Per row, the running mean of the entropy of the tokens that its request has
            emitted, in nats; NaN where there is none yet. Shape ``(B,)``; all NaN if not given.
        follows: Per row, the index of the row that decides the token before it in the same step,
            always a smaller one; -1 where there is none. Shape ``(B,)``; all -1 if not given.

    Attributes:
        running_entropy: Shape ``(B,)``, float64.
        follow_each_other: Whether any row follows another one.
        derived: :meth:`RowParameters.derived` of the parameters that these rows share with all that
            have other running means.

    Raises:
        ValueError: When *running_entropy* does not have one entry per row.

    Examples:
        >>> rows = Rows([SamplingParameters(top_k=5), SamplingParameters(top_k=9)])
        >>> rows.column("top_k")
        array([5., 9.])
    """

    def __init__(
        self,
        parameters: Sequence[SamplingParameters],
        running_entropy: ArrayLike | None = None,
        follows: Sequence[int] | None = None,
    ) -> None:
        self._shared = RowParameters(parameters)
        self.derived = self._shared.derived
        following = follows is not None and any(index >= 0 for index in follows)
        self._follows = tuple(follows or ()) if following else None
        self.follow_each_other = following
        self.running_entropy = self._one_per_row(
            np.full(len(self), np.nan) if running_entropy is None else running_entropy
        )

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def parameters(self) -> tuple[SamplingParameters, ...]:
        """The parameters of the B rows."""
        return self._shared.parameters

    def column(self, field: str) -> FloatArray:
        """Returns the numeric *field* of every row. Shape ``(B,)``, float64."""
        return self._shared.column(field)

    def groups(self, *fields: str) -> dict[tuple[object, ...], IndexArray]:
        """Returns the row indices that share the values of *fields*, in order of appearance."""
        return self._shared.groups(*fields)

    def take(self, indices: IndexArray) -> Rows:
        """Returns the rows at *indices*, in that order; these very rows if that is all of them."""
        if indices.size == len(self) and indices.tolist() == list(range(indices.size)):
            return self
        return Rows(
            [self.parameters[index] for index in indices],
            self.running_entropy[indices],
            self._taken_follows(indices.tolist()),
        )

    def with_running_entropy(self, running_entropy: ArrayLike) -> Rows:
        """Returns the same rows with other running means; the columns are shared, not copied.

        Args:
            running_entropy: As for the class. Shape ``(B,)``.

        Raises:
            ValueError: When there is not one entry per row.
        """
        rows = Rows.__new__(Rows)
        rows.__dict__.update(self.__dict__)
        rows.running_entropy = self._one_per_row(running_entropy)
        return rows

    def after_predecessors(self, entropy_nats: FloatArray) -> Rows:
        """Returns the same rows, the mean of each brought up to the rows that it follows.

        A row sees the mean that it would have seen had the tokens been decided one step at a time.

        Args:
            entropy_nats: Entropy of the rows as strategies see it. Shape ``(B,)``.
        """
        if self._follows is None:
            return self
        means = self.running_entropy.tolist()
        rates = self.column("varentropy_drift_rate").tolist()
        for index, before in enumerate(self._follows):
            if before >= 0:
                mean = RunningMean(rates[index], means[before])
                mean.observe(float(entropy_nats[before]))
                means[index] = mean.value
        return self.with_running_entropy(means)

    def _taken_follows(self, indices: list[int]) -> list[int] | None:
        """Returns, for the rows at *indices*, which of them they follow."""
        if self._follows is None or not indices:
            return None
        new = {old: index for index, old in enumerate(indices)}
        return [new.get(self._follows[old], -1) for old in indices]

    def _one_per_row(self, values: ArrayLike) -> FloatArray:
        array = np.array(values, dtype=np.float64)
        if array.shape != (len(self._shared.parameters),):
            raise ValueError(
                f"running_entropy has shape {array.shape}; expected one entry for each of "
                f"{len(self)} rows"
            )
        return array
