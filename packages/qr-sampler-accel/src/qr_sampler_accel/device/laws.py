# SPDX-License-Identifier: Apache-2.0
"""The laws of a batch of rows on the device where the logits are.

Every question is asked of all rows that it concerns at once. Nothing of the size of the vocabulary
comes to the host, unless somebody asks for all of a law: what comes are a number for each token
that is asked about, and the tokens that are selected. Each answer waits for the device once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler.selection import Residual, RowLaws
from qr_sampler.selection.laws import RESIDUAL_UNIT
from qr_sampler_accel.device.masses import MassBuffers, ceil_products, fill_exponents, fill_masses
from qr_sampler_accel.device.passes import DeviceRows
from qr_sampler_accel.device.scratch import Scratch
from qr_sampler_accel.device.truncation import RowCuts, Work

__all__ = ["Edge", "Lawful", "TorchLaws"]


class Edge(NamedTuple):
    """One end of what truncation kept, a token of each row. Shapes ``(D,)``."""

    value: torch.Tensor
    """Float32, its logit."""
    token_id: torch.Tensor
    """Int64, its id, which tells it from others with the same logit."""

    @classmethod
    def of(cls, work: Work, cut: RowCuts) -> Edge:
        """Returns the last token of a prefix of the ranks, in memory of its own."""
        token_ids = work.plain.token_ids(work.rows, cut.value, cut.place)
        return cls(cut.value.clone(), token_ids.clone())

    def take(self, index: torch.Tensor) -> Edge:
        """Returns those of some rows, as columns. Shapes ``(N, 1)``."""
        return Edge(*(values.index_select(0, index)[:, None] for values in self))


class Lawful(NamedTuple):
    """What laws need to know of D rows. Shapes ``(D,)``."""

    inverse: torch.Tensor
    """Float64, 1 / T."""
    total: torch.Tensor
    """Float64, mass of the tokens that truncation kept."""
    candidates: torch.Tensor
    """Int64, number of those."""
    first: Edge | None
    """The first of them in rank order; ``None`` where none before it was cut off in any row."""
    last: Edge | None
    """The last of them; ``None`` where none behind it was cut off in any row."""


class TorchLaws(RowLaws):
    """The laws of D rows.

    Args:
        work: The rows and what works on them.
        lawful: What truncation kept of them.
    """

    def __init__(self, work: Work, lawful: Lawful) -> None:
        self._work, self._lawful = work, lawful
        self._device = work.rows.logits.device
        self._ids = torch.arange(work.rows.vocab_size, device=self._device)[None, :]

    @property
    def candidates(self) -> IndexArray:
        """Numbers of tokens that truncation kept; waits for the device."""
        numbers: IndexArray = self._lawful.candidates.cpu().numpy().astype(np.intp)
        return numbers

    def probabilities(self, rows: Sequence[int], token_ids: Sequence[int]) -> FloatArray:
        """Returns the probability of a token for each pair; waits for the device once."""
        row, token = self._sent(np.array([rows, token_ids], dtype=np.int64))
        own, lawful = self._work.rows, self._lawful
        logits = own.logits[row, token][:, None]
        buffers = MassBuffers(len(rows), 1, self._device)
        fill_exponents(buffers, logits, own.maximum.index_select(0, row))
        fill_masses(buffers, lawful.inverse.index_select(0, row), own.unit)
        self._cut_off(buffers.mass, logits, token[:, None], row)
        found = buffers.mass[:, 0] / lawful.total.index_select(0, row)
        probabilities: FloatArray = found.cpu().numpy()
        return probabilities

    def ranks(self, rows: Sequence[int], token_ids: Sequence[int]) -> IndexArray:
        """Returns the rank of a token for each pair; waits for the device once."""
        row, token = self._sent(np.array([rows, token_ids], dtype=np.int64))
        found = torch.empty(len(rows), dtype=torch.int64, device=self._device)
        logits = self._work.rows.logits
        for part in self._parts(len(rows)):
            own, ids = logits.index_select(0, row[part]), token[part, None]
            value = own.gather(1, ids)
            before = (own > value) | ((own == value) & (self._ids < ids))
            torch.sum(before, dim=1, out=found[part])
        numbers: IndexArray = found.cpu().numpy().astype(np.intp)
        return numbers

    def dense(self, row: int) -> FloatArray:
        """Returns the probabilities of all tokens of *row*, which come to the host."""
        index = self._sent(np.array([row]))
        buffers = self._filled(index)
        found = buffers.mass / self._lawful.total.index_select(0, index)[:, None]
        probabilities: FloatArray = found[0].cpu().numpy()
        return probabilities

    def remainders(self, residuals: Sequence[Residual]) -> FloatArray:
        """Returns the sum of each residual; waits for the device once."""
        sums = torch.empty(len(residuals), dtype=torch.float64, device=self._device)
        for part in self._parts(len(residuals)):
            torch.sum(self._left(residuals[part]).exponent, dim=1, out=sums[part])
        own = [residual.law is None for residual in residuals]
        return np.where(own, 1.0, sums.cpu().numpy() / RESIDUAL_UNIT)

    def select(self, residuals: Sequence[Residual], u: FloatArray) -> IndexArray:
        """Returns a token of each residual; waits for the device once."""
        found = torch.empty(len(residuals), dtype=torch.int64, device=self._device)
        for part in self._parts(len(residuals)):
            buffers = self._left(residuals[part])
            nothing = buffers.exponent.sum(dim=1, keepdim=True) == 0.0
            masses = torch.where(nothing, buffers.mass, buffers.exponent, out=buffers.scratch)
            running = torch.cumsum(masses, dim=1, out=buffers.mass)
            goal = _goals_above(self._sent(u[part]), running[:, -1])
            torch.lt(running, goal[:, None], out=buffers.flag)
            torch.sum(buffers.flags_as_integers(), dim=1, out=found[part])
        numbers: IndexArray = found.cpu().numpy().astype(np.intp)
        return numbers

    def _parts(self, count: int) -> Iterator[slice]:
        """Yields some of *count* rows at a time, as many as there are buffers for."""
        piece = self._work.plain.piece
        for start in range(0, count, piece):
            yield slice(start, min(start + piece, count))

    def _sent(self, values: FloatArray | IndexArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    def _filled(self, index: torch.Tensor) -> MassBuffers:
        """Returns buffers with the kept masses of some rows."""
        work = self._work
        rows = DeviceRows(*(values.index_select(0, index) for values in work.rows.tensors))
        buffers = work.plain.buffers(rows.count)
        work.passes.masses(rows, self._lawful.inverse.index_select(0, index), buffers)
        self._cut_off(buffers.mass, rows.logits, self._ids, index)
        return buffers

    def _cut_off(
        self, masses: torch.Tensor, logits: torch.Tensor, ids: torch.Tensor, index: torch.Tensor
    ) -> None:
        """Sets the masses of tokens to 0 that truncation did not keep. Shapes ``(N, M)``."""
        if self._lawful.last is not None:
            value, token_id = self._lawful.last.take(index)
            masses.masked_fill_((logits < value) | ((logits == value) & (ids > token_id)), 0.0)
        if self._lawful.first is not None:
            value, token_id = self._lawful.first.take(index)
            masses.masked_fill_((logits > value) | ((logits == value) & (ids < token_id)), 0.0)

    def _left(self, residuals: Sequence[Residual]) -> MassBuffers:
        """Returns buffers with the kept masses, and in *exponent* what is left of them.

        The masses themselves are left where nothing is taken off.
        """
        index = self._sent(np.array([residual.row for residual in residuals], dtype=np.int64))
        buffers = self._filled(index)
        numbers = [
            (each.weight, each.law.elsewhere, 0.0) if each.law is not None else (1.0, 0.0, 1.0)
            for each in residuals
        ]
        weight, elsewhere, own = self._sent(np.array(numbers).T)[:, :, None]
        left, total = buffers.exponent, self._lawful.total.index_select(0, index)
        torch.div(buffers.mass, total[:, None], out=left).mul_(weight)
        self._take_off(left, elsewhere, residuals)
        left.clamp_(min=0.0).mul_(RESIDUAL_UNIT).round_()
        torch.where(own > 0.0, buffers.mass, left, out=left)
        return buffers

    def _take_off(
        self, left: torch.Tensor, elsewhere: torch.Tensor, residuals: Sequence[Residual]
    ) -> None:
        """Subtracts other laws. Shapes ``(N, V)`` and ``(N, 1)``."""
        laws = [(line, each.law) for line, each in enumerate(residuals) if each.law is not None]
        places: Any = [np.full(law.token_ids.size, line) for line, law in laws]
        lines, ids = (
            self._sent(np.concatenate([np.empty(0, dtype=np.int64), *columns]).astype(np.int64))
            for columns in (places, [law.token_ids for _, law in laws])
        )
        there = self._sent(np.concatenate([np.empty(0), *(law.probabilities for _, law in laws)]))
        apart = left[lines, ids].sub_(there)
        left.sub_(elsewhere).index_put_((lines, ids), apart)


def _goals_above(u: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
    """Returns the least whole numbers that exceed u times a total, see ``goal_above``."""
    scratch = Scratch(len(u), u.device)
    return totals + 1.0 - ceil_products(1.0 - u, totals.contiguous(), scratch)
