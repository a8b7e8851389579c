# SPDX-License-Identifier: Apache-2.0
"""The selector for logits on an accelerator: batched, without sorting, with one wait per step."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from qr_sampler import Measurement, Rows, Selector
from qr_sampler._typing import FloatArray, IndexArray
from qr_sampler_vllm.torch_masses import ceil_products
from qr_sampler_vllm.torch_passes import DeviceRows, Passes, TorchPasses
from qr_sampler_vllm.torch_radix import Descent
from qr_sampler_vllm.torch_results import TorchSelectionResult
from qr_sampler_vllm.torch_statistics import Sums, launch_sums
from qr_sampler_vllm.torch_transfer import Download, Upload
from qr_sampler_vllm.torch_truncation import (
    DeviceFilters,
    HostFilters,
    Work,
    cut_extent,
    places,
    truncate,
)
from qr_sampler_vllm.torch_typical import typical_ranges

__all__ = ["Kernels", "TorchMeasurement", "TorchPlan", "TorchSelector"]

Kernels = Literal["auto", "torch", "triton"]
"""What the passes over masses run on; ``auto`` is Triton on CUDA where it can be imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchMeasurement(Measurement):
    """The statistics together with the rows on the device."""

    device_rows: DeviceRows
    """The D decidable rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchPlan:
    """What is known of D rows before u is. Shapes ``(D,)`` unless said otherwise."""

    work: Work
    """The rows and what works on them."""
    inverse: torch.Tensor
    """Float64, 1 / T."""
    first: torch.Tensor
    """Shape ``(D, BINS)``, running totals of the first histogram."""
    before: torch.Tensor | None
    """Float64, mass of the ranks before the first that survives truncation, if any is cut off."""
    total: torch.Tensor
    """Float64, mass of those that survive."""
    candidates: torch.Tensor
    """Int64, number of those."""


class Workspace:
    """Everything that is allocated once and used in every step.

    Args:
        rows: Largest number of rows B.
        columns: Number of tokens V.
        device: Where the logits are.
        kernels: What to run the passes on.
    """

    def __init__(self, rows: int, columns: int, device: torch.device, kernels: Kernels) -> None:
        self.rows, self.columns, self.device = rows, columns, device
        self.plain = TorchPasses(rows, columns, device)
        self.passes = _passes(kernels, self.plain, device)
        self.descent = Descent(rows, device)
        self.maximum = torch.empty(rows, dtype=torch.float32, device=device)
        self.sums = torch.empty(7 * rows, dtype=torch.float64, device=device)
        self.measured = Download(7 * rows, device)
        self.selected = Download(4 * rows, device)
        # One each, because the device may not have reached a copy when the next one is prepared.
        self.filters, self.quantiles, self.forced, self.lines, self.typical = (
            Upload(8 * rows, device) for _ in range(5)
        )

    def fits(self, logits: torch.Tensor) -> bool:
        """Whether a batch can be worked on in this memory."""
        rows, columns = logits.shape
        same = columns == self.columns and logits.device == self.device
        return bool(same and rows <= self.rows)


class TorchSelector(Selector[TorchMeasurement, TorchPlan]):
    """Selects on the device of the logits and picks what the reference picks.

    :meth:`measure` makes the host wait, once: for a few numbers per row that the device computes
    from the logits, so that these exist when it returns. Afterwards it copies single rows to the
    host where a rounding is in doubt, see :mod:`qr_sampler_vllm.torch_statistics`.
    :meth:`prepare` and :meth:`pick` only launch work. The arrays of a result wait for the device
    when they are first read; its :meth:`TorchSelectionResult.force` does not.

    Rows are worked on in memory that is allocated on first use and kept: no step allocates more
    than some numbers per row, except for rows with typical-p, which are sorted. Call
    :meth:`prepare` once per measurement; its plan is valid until the next one.

    Args:
        kernels: What the passes over masses run on.
    """

    def __init__(self, kernels: Kernels = "auto") -> None:
        self._kernels: Kernels = kernels
        self._workspace: Workspace | None = None
        self._latest: TorchSelectionResult | None = None

    def measure(
        self,
        logits: Any,
        rows: Rows,
        temperature: FloatArray,
        settle: IndexArray | None = None,
    ) -> TorchMeasurement:
        """Returns the statistics of the decidable rows; waits until the logits exist.

        Args:
            logits: Tensor of shape ``(B, V)``, float32, consecutive within each row.
            rows: The parameters of the B rows.
            temperature: As in :class:`Selector`.
            settle: As in :class:`Selector`.
        """
        counts = np.where(np.isnan(temperature), 2, 0) if settle is None else settle
        space = self._space_for(logits)
        batch = DeviceRows(logits, space.maximum[: len(rows)])
        deviation = bool((rows.column("top_n_sigma") > 0.0).any())
        height = 7 if deviation else 4
        values = space.sums[: height * len(rows)].view(height, len(rows))
        launch_sums(space.plain, batch, values, deviation=deviation)
        space.measured.start(values)
        sums = Sums(space.measured.wait())
        ready_ns = time.monotonic_ns()
        return self._measurement(sums, batch, rows, counts, ready_ns)

    def prepare(self, measurement: TorchMeasurement, temperature: FloatArray) -> TorchPlan:
        """Launches everything that does not need u. Arguments as in :class:`Selector`."""
        space, rows = self._current(), measurement.device_rows
        filters = HostFilters.of(
            measurement.rows,
            temperature,
            measurement.logit_deviation,
            int(rows.unit),
            rows.vocab_size,
        )
        typical_p = measurement.rows.column("typical_p")
        sent = space.filters.send((*filters.columns, typical_p))
        device = DeviceFilters(*sent[:-1])
        work = Work(rows, space.passes, space.plain, space.descent)
        cut, first = truncate(work, filters, device)
        if cut is None:
            total = first[:, -1].clone()
            candidates = torch.full_like(total, rows.vocab_size, dtype=torch.int64)
        else:
            total, candidates = cut_extent(work, device.inverse, cut)
        plan = TorchPlan(
            work=work,
            inverse=device.inverse,
            first=first,
            before=None,
            total=total,
            candidates=candidates,
        )
        return self._typical(plan, filters.typical_lines, sent[-1])

    def pick(self, plan: TorchPlan, u: FloatArray) -> TorchSelectionResult:
        """Launches the selection. Arguments as in :class:`Selector`."""
        space, work = self._current(), plan.work
        if self._latest is not None:
            self._latest.fetch()
        (quantile,) = space.quantiles.send([u])
        goal = ceil_products(quantile, plan.total)
        if plan.before is not None:
            goal += plan.before
        landing = work.descent.reach(work.passes, work.rows, plan.inverse, goal, plan.first)
        above, count = work.plain.counts_at(work.rows, landing.value)
        place, mass = places(landing, count)
        token_ids = work.plain.token_ids(work.rows, landing.value, place)
        columns = (token_ids, above + place - 1, mass / plan.total, plan.candidates)
        space.selected.start(torch.stack([column.to(torch.float64) for column in columns]))
        self._latest = TorchSelectionResult(token_ids, space.selected, space.forced)
        return self._latest

    def _space_for(self, logits: torch.Tensor) -> Workspace:
        if self._workspace is None or not self._workspace.fits(logits):
            rows, columns = logits.shape
            # A power of two, so that a batch growing by one row a step is not moved every time.
            capacity = 1 << max(rows - 1, 0).bit_length()
            self._workspace = Workspace(capacity, columns, logits.device, self._kernels)
        return self._workspace

    def _current(self) -> Workspace:
        if self._workspace is None:
            raise RuntimeError("measure() comes first: nothing has been measured yet")
        return self._workspace

    def _measurement(
        self, sums: Sums, batch: DeviceRows, rows: Rows, settle: IndexArray, ready_ns: int
    ) -> TorchMeasurement:
        lines = sums.lines
        wanted = rows.column("top_n_sigma") > 0.0
        moments, deviations = [], []
        for line in lines.tolist():
            row = batch.logits[line]
            moments.append(sums.moments(line, row, int(settle[line])))
            deviations.append(sums.deviation(line, row) if wanted[line] else math.nan)
        table = np.array(moments, dtype=np.float64).reshape(-1, 2)
        complete = len(lines) == len(rows)
        return TorchMeasurement(
            lines=lines,
            rows=rows.take(lines),
            vocab_size=batch.vocab_size,
            entropy_nats=table[:, 0],
            varentropy_nats2=table[:, 1],
            logit_deviation=np.array(deviations, dtype=np.float64),
            device_rows=batch if complete else self._without_undecidable(batch, lines),
            logits_ready_ns=ready_ns,
        )

    def _without_undecidable(self, batch: DeviceRows, lines: IndexArray) -> DeviceRows:
        """Returns the rows at *lines*, in memory of their own."""
        (sent,) = self._current().lines.send([lines.astype(np.float64)])
        index = sent.to(torch.int64)
        return DeviceRows(*(values.index_select(0, index) for values in batch.tensors))

    def _typical(self, plan: TorchPlan, lines: IndexArray, typical_p: torch.Tensor) -> TorchPlan:
        """Returns *plan* with typical-p applied to the rows at *lines*."""
        if not lines.size:
            return plan
        rows, before = plan.work.rows, torch.zeros_like(plan.total)
        (sent,) = self._current().typical.send([lines.astype(np.float64)])
        for index in sent.to(torch.int64).split(plan.work.plain.piece):
            part = DeviceRows(*(values.index_select(0, index) for values in rows.tensors))
            columns = (plan.inverse, plan.candidates, typical_p)
            found = typical_ranges(part, *(column.index_select(0, index) for column in columns))
            for column, values in zip((before, plan.total, plan.candidates), found, strict=True):
                column.index_copy_(0, index, values)
        return replace(plan, before=before)


def _passes(kernels: Kernels, plain: TorchPasses, device: torch.device) -> Passes:
    """Returns what does the passes over masses."""
    if kernels == "torch" or (kernels == "auto" and device.type != "cuda"):
        return plain
    try:
        from qr_sampler_vllm.triton_passes import TritonPasses
    except ImportError:
        if kernels == "triton":
            raise
        return plain
    return TritonPasses()
