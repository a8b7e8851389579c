# SPDX-License-Identifier: Apache-2.0
"""The selector for logits on an accelerator: batched, without sorting, with one wait per step.

What happens in a step, and where::

    host      measure                      (pipeline) draw      pick, force
    device    sums | copy | histogram, filters .....|           rest of the selection | copy
                       ^-- the host waits for this only

Everything that needs no u is launched before the wait where the temperatures are known by then, and
right after it where they depend on the sums. The request leaves when the logits, and a few sums
over them, exist; the device works on the rest while the request is under way.

In the steady state, with the same requests and fixed temperatures, a step copies the sums and the
outcome to the host, one block each, and u to the device. Parameters that have changed, as
temperatures that depend on the sums do, are one more block.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from qr_sampler import Measurement, Rows, SamplingParameters, Selector
from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler.selection import Residual
from qr_sampler_accel.device.laws import Edge, Lawful, TorchLaws
from qr_sampler_accel.device.masses import ceil_products
from qr_sampler_accel.device.passes import DeviceRows
from qr_sampler_accel.device.results import TorchSelectionResult
from qr_sampler_accel.device.rows import EngineRows
from qr_sampler_accel.device.statistics import Sums, launch_spread
from qr_sampler_accel.device.truncation import (
    DeviceFilters,
    HostFilters,
    RowCuts,
    Work,
    cut_extent,
    places,
    truncate,
)
from qr_sampler_accel.device.typical import typical_ranges
from qr_sampler_accel.device.workspace import Kernels, Workspace

__all__ = ["TorchMeasurement", "TorchPlan", "TorchSelector"]

EVERY_KERNEL: Final = (
    SamplingParameters.model_validate({}),
    SamplingParameters.model_validate(
        {"top_k": 2, "top_n_sigma": 1.0, "min_p": 0.1, "top_p": 0.9, "truncate_first": True}
    ),
)
"""Steps with these parameters need everything that any step needs, sorting left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchPlan:
    """What is known of D rows before u is. Shapes ``(D,)`` unless said otherwise."""

    work: Work
    """The rows and what works on them."""
    temperature: FloatArray
    """On the host, of the draw."""
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
    begin: RowCuts | None
    """The end of the prefix whose last token is the first that survives, if any is cut off."""
    end: RowCuts | None
    """The end of the prefix whose last token is the last that survives, if any is cut off."""
    in_use: dict[torch.dtype, int]
    """The scratch memory that all this needs."""


@dataclass(slots=True, kw_only=True)
class TorchMeasurement(Measurement):
    """The statistics together with the rows on the device."""

    device_rows: DeviceRows
    """The D decidable rows."""
    plan: TorchPlan | None
    """Their plan, if it could be launched before the statistics were known."""


class TorchSelector(Selector[TorchMeasurement, TorchPlan]):
    """Selects on the device of the logits and picks what the reference picks.

    :meth:`measure` makes the host wait, once: for a few numbers per row that the device computes
    from the logits, so that these exist when it returns. Afterwards it copies single rows to the
    host where a rounding is in doubt, see :mod:`qr_sampler_accel.device.statistics`.
    :meth:`prepare` and :meth:`pick` only launch work. The arrays of a result wait for the device
    when they are first read; its :meth:`TorchSelectionResult.force` does not.

    Rows are worked on in memory that is allocated on first use, or by :meth:`reserve`, and kept. A
    step asks for more only where rows cannot be decided or ask for typical-p, which sorts. Call
    :meth:`prepare` once per measurement; its plan is valid until the next one.

    Args:
        kernels: What the passes over masses run on.
    """

    def __init__(self, kernels: Kernels = "auto") -> None:
        self._kernels: Kernels = kernels
        self._workspace: Workspace | None = None
        self._engine_rows: EngineRows | None = None
        self._latest: TorchSelectionResult | None = None

    def reserve(self, rows: int, columns: int, device: torch.device) -> None:
        """Allocates what steps need and compiles kernels, so that no step has to.

        Args:
            rows: Largest number of rows B.
            columns: Number of tokens V.
            device: Where the logits will be.
        """
        logits = torch.zeros((rows, columns), dtype=torch.float32, device=device)
        for parameters in EVERY_KERNEL:
            batch = Rows([parameters] * rows)
            temperature = np.full(rows, 2.0)
            measured = self.measure(logits, batch, temperature)
            plan = self.prepare(measured, temperature)
            self.laws(plan).select([Residual(0)], np.full(1, 0.5))
            self.pick(plan, np.full(rows, 0.5)).force(logits, range(rows))
            logits.zero_()
        self.taken(logits, range(1, rows))

    def taken(self, logits: torch.Tensor, lines: Sequence[int]) -> torch.Tensor:
        """Returns rows of the engine's logits as :meth:`measure` takes them.

        Args:
            logits: Shape ``(R, V)``, of any floating-point type.
            lines: The L rows to take.

        Returns:
            Shape ``(L, V)``, float32: *logits* where that is possible, else memory that is valid
            until the next call.
        """
        return self._rows_for(logits).taken(logits, lines)

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
        space.scratch.restart(len(rows))
        batch = DeviceRows(logits, space.maximum[: len(rows)])
        deviation = bool((rows.column("top_n_sigma") > 0.0).any())
        height = 7 if deviation else 4
        values = space.sums[: height * len(rows)].view(height, len(rows))
        space.passes.moments(batch, values[:4])
        if deviation:
            launch_spread(space.plain, batch, values[4:], space.scratch)
        space.measured.start(values)
        plan = None
        if not (deviation or np.isnan(temperature).any()):
            plan = self._launch(batch, rows, temperature, temperature)
        sums = Sums(space.measured.wait())
        ready_ns = time.monotonic_ns()
        return self._measurement(sums, batch, rows, counts, ready_ns, plan)

    def prepare(self, measurement: TorchMeasurement, temperature: FloatArray) -> TorchPlan:
        """Launches what needs no u, unless that is done. Arguments as in :class:`Selector`."""
        plan = measurement.plan
        if plan is not None and np.array_equal(plan.temperature, temperature):
            return plan
        rows, deviation = measurement.rows, measurement.logit_deviation
        return self._launch(measurement.device_rows, rows, temperature, deviation)

    def pick(self, plan: TorchPlan, u: FloatArray) -> TorchSelectionResult:
        """Launches the selection. Arguments as in :class:`Selector`."""
        space, work = self._current(), plan.work
        if self._latest is not None:
            self._latest.fetch()
        scratch = work.scratch
        scratch.rewind(plan.in_use)
        goal = ceil_products(space.quantiles.send(u), plan.total, scratch)
        if plan.before is not None:
            goal.add_(plan.before)
        landing = work.descent.reach(work.passes, work.rows, plan.inverse, goal, plan.first)
        above, count = work.plain.counts_at(work.rows, landing.value)
        place, mass = places(landing, count, scratch)
        token_ids = work.plain.token_ids(work.rows, landing.value, place)
        chosen = space.chosen[: 4 * len(u)].view(4, len(u))
        chosen[0].copy_(token_ids)
        chosen[1].copy_(above.add_(place)).sub_(1.0)
        torch.div(mass, plan.total, out=chosen[2])
        chosen[3].copy_(plan.candidates)
        space.selected.start(chosen)
        self._latest = TorchSelectionResult(
            token_ids, space.selected, self._rows_for(work.rows.logits)
        )
        return self._latest

    def laws(self, plan: TorchPlan) -> TorchLaws:
        """Returns the laws of the rows, which only launches work.

        They are valid until :meth:`measure` is called again.
        """
        work = plan.work
        work.scratch.rewind(plan.in_use)
        begin, end = (None if cut is None else Edge.of(work, cut) for cut in (plan.begin, plan.end))
        return TorchLaws(work, Lawful(plan.inverse, plan.total, plan.candidates, begin, end))

    def _launch(
        self, device_rows: DeviceRows, rows: Rows, temperature: FloatArray, deviation: FloatArray
    ) -> TorchPlan:
        """Launches everything that needs no u, for D rows."""
        space = self._current()
        space.scratch.restart(len(rows))
        filters = HostFilters.of(
            rows, temperature, deviation, int(device_rows.unit), device_rows.vocab_size
        )
        typical_p = rows.column("typical_p")
        sent = space.filters.send(np.stack((*filters.columns, typical_p)))
        device = DeviceFilters(*sent[:-1])
        work = Work(device_rows, space.passes, space.plain, space.descent, space.scratch)
        cut, first = truncate(work, filters, device)
        if cut is None:
            total = space.scratch.floats().copy_(first[:, -1])
            candidates = space.scratch.integers().fill_(device_rows.vocab_size)
        else:
            total, candidates = cut_extent(work, device.inverse, cut)
        plan = TorchPlan(
            work=work,
            # The caller may go on to use its array for something else.
            temperature=temperature.copy(),
            inverse=device.inverse,
            first=first,
            before=None,
            total=total,
            candidates=candidates,
            begin=None,
            end=cut,
            in_use=space.scratch.mark(),
        )
        return self._typical(plan, filters.typical_lines, sent[-1])

    def _space_for(self, logits: torch.Tensor) -> Workspace:
        if self._workspace is None or not self._workspace.fits(logits):
            rows, columns = logits.shape
            self._workspace = Workspace(_capacity(rows), columns, logits.device, self._kernels)
        return self._workspace

    def _rows_for(self, logits: torch.Tensor) -> EngineRows:
        found = self._engine_rows
        if found is None or found.rows < len(logits) or found.device != logits.device:
            found = self._engine_rows = EngineRows(_capacity(len(logits)), logits.device)
        return found

    def _current(self) -> Workspace:
        if self._workspace is None:
            raise RuntimeError("measure() comes first: nothing has been measured yet")
        return self._workspace

    def _measurement(
        self,
        sums: Sums,
        batch: DeviceRows,
        rows: Rows,
        settle: IndexArray,
        ready_ns: int,
        plan: TorchPlan | None,
    ) -> TorchMeasurement:
        lines = sums.lines
        entropy, varentropy = sums.moments(batch.logits, settle)
        complete = len(lines) == len(rows)
        return TorchMeasurement(
            lines=lines,
            rows=rows.take(lines),
            vocab_size=batch.vocab_size,
            entropy_nats=entropy,
            varentropy_nats2=varentropy,
            logit_deviation=sums.deviations(batch.logits, rows.column("top_n_sigma") > 0.0),
            device_rows=batch if complete else self._without_undecidable(batch, lines),
            logits_ready_ns=ready_ns,
            plan=plan if complete else None,
        )

    def _without_undecidable(self, batch: DeviceRows, lines: IndexArray) -> DeviceRows:
        """Returns the rows at *lines*, in memory of their own."""
        index = self._current().lines.send(lines)
        return DeviceRows(*(values.index_select(0, index) for values in batch.tensors))

    def _typical(self, plan: TorchPlan, lines: IndexArray, typical_p: torch.Tensor) -> TorchPlan:
        """Returns *plan* with typical-p applied to the rows at *lines*."""
        if not lines.size:
            return plan
        space, rows = self._current(), plan.work.rows
        before = space.scratch.floats().zero_()
        begin, end = _all_tokens(plan.work), plan.end or _all_tokens(plan.work, -torch.inf)
        columns = (before, plan.total, plan.candidates, *begin, *end)
        for index in space.typical.send(lines).split(space.plain.piece):
            part = DeviceRows(*(values.index_select(0, index) for values in rows.tensors))
            known = (plan.inverse, plan.candidates, typical_p)
            found = typical_ranges(part, *(column.index_select(0, index) for column in known))
            values = (*found[:3], *found.first, *found.last)
            for column, own in zip(columns, values, strict=True):
                column.index_copy_(0, index, own)
        return replace(plan, before=before, begin=begin, end=end, in_use=space.scratch.mark())


def _all_tokens(work: Work, value: float = torch.inf) -> RowCuts:
    """Returns a cut at an infinite logit, which cuts nothing off."""
    return RowCuts(
        work.scratch.take(torch.float32).fill_(value),
        work.scratch.integers().fill_(work.rows.vocab_size),
    )


def _capacity(rows: int) -> int:
    """Returns a power of two, so that a batch growing by one row a step is not moved every time."""
    return 1 << max(rows - 1, 0).bit_length()
