# SPDX-License-Identifier: Apache-2.0
"""The filters of :mod:`qr_sampler.selection.filters` for a batch of rows on a device.

The first four keep a prefix of the ranks. Its end is named by a logit and a number of tokens at
that logit, which holds at every temperature and needs no ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from qr_sampler import Rows
from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler.selection.masses import ceil_product
from qr_sampler_accel.device.masses import ceil_products
from qr_sampler_accel.device.passes import DeviceRows, Passes, TorchPasses
from qr_sampler_accel.device.radix import RadixDescent, RowLandings
from qr_sampler_accel.device.scratch import Scratch

__all__ = ["DeviceFilters", "HostFilters", "RowCuts", "Work", "cut_extent", "places", "truncate"]


class Work(NamedTuple):
    """A batch of rows and what works on it."""

    rows: DeviceRows
    """The D rows."""
    passes: Passes
    """Does the passes over masses."""
    plain: TorchPasses
    """Does the passes over logits."""
    descent: RadixDescent
    """Finds where totals reach goals."""
    scratch: Scratch
    """Lends memory for numbers of D rows."""


class RowCuts(NamedTuple):
    """The end of a prefix of the ranks. Shapes ``(D,)``."""

    value: torch.Tensor
    """Float32: tokens with a greater logit are in the prefix."""
    place: torch.Tensor
    """Int64: so are that many tokens with this logit, by token id; all, if there are fewer."""


class DeviceFilters(NamedTuple):
    """Parameters of D rows on the device. Shapes ``(D,)``, float64."""

    inverse: torch.Tensor
    """1 / T of the draw."""
    plain: torch.Tensor
    """1 / T of the distribution that the first four filters act on."""
    top_k: torch.Tensor
    """Number of tokens that top-k keeps; V where it is off."""
    farthest: torch.Tensor
    """Least distance that top-n-sigma keeps, a float32 number; -inf where it is off."""
    least: torch.Tensor
    """Least mass that min-p keeps; 0 where it is off."""
    top_p: torch.Tensor
    """In (0, 1]; 1 where it is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFilters:
    """Parameters of D rows, and which filters are in use: known without asking the device."""

    columns: tuple[FloatArray, ...]
    """What :class:`DeviceFilters` holds."""
    any_lowest: bool
    """Whether top-n-sigma or min-p is on in any row."""
    any_top_k: bool
    """Whether top-k is."""
    any_top_p: bool
    """Whether top-p is."""
    same_temperature: bool
    """Whether all rows are filtered at the temperature of the draw."""
    typical_lines: IndexArray
    """The rows with typical-p."""

    @classmethod
    def of(
        cls, rows: Rows, temperature: FloatArray, deviation: FloatArray, unit: int, vocab_size: int
    ) -> HostFilters:
        """Returns the parameters of D rows.

        Args:
            rows: The parameters.
            temperature: Shape ``(D,)``, of the draw.
            deviation: Shape ``(D,)``, standard deviation of the logits where top-n-sigma is on.
            unit: The mass of the most probable token.
            vocab_size: Number of tokens V.
        """
        top_k, top_p = rows.column("top_k"), rows.column("top_p")
        min_p, sigmas = rows.column("min_p"), rows.column("top_n_sigma")
        plain = np.where(rows.column("truncate_first") > 0.0, 1.0, temperature)
        kept = np.where(top_k > 0.0, np.minimum(top_k, vocab_size), vocab_size)
        farthest = np.where(sigmas > 0.0, _at_least(-sigmas * deviation), -np.inf)
        least = [float(ceil_product(factor, unit)) for factor in min_p.tolist()]
        return cls(
            columns=(1.0 / temperature, 1.0 / plain, kept, farthest, np.array(least), top_p),
            any_lowest=bool((sigmas > 0.0).any() or (min_p > 0.0).any()),
            any_top_k=bool((kept < vocab_size).any()),
            any_top_p=bool((top_p < 1.0).any()),
            same_temperature=bool((plain == temperature).all()),
            typical_lines=np.flatnonzero(rows.column("typical_p") < 1.0),
        )


def truncate(
    work: Work, filters: HostFilters, device: DeviceFilters
) -> tuple[RowCuts | None, torch.Tensor]:
    """Returns the prefix that the first four filters leave.

    Args:
        work: The D rows.
        filters: Which filters are in use.
        device: Their parameters.

    Returns:
        The end of the prefix, ``None`` if no row is truncated, and the running totals of the first
        histogram at the temperature of the draw.
    """
    cut, first = None, None
    if filters.any_lowest:
        farthest = work.scratch.take(torch.float32).copy_(device.farthest)
        value = work.passes.lowest(work.rows, device.plain, farthest, device.least)
        cut = RowCuts(value, _all_places(work))
    if filters.any_top_k:
        kept = _top_k(work, device.top_k)
        cut = kept if cut is None else _smaller(cut, kept, work.scratch)
    if filters.any_top_p:
        first = work.descent.first_totals(work.passes, work.rows, device.plain)
        cut = _top_p(work, device, cut, first)
    if first is None or not filters.same_temperature:
        first = work.descent.first_totals(work.passes, work.rows, device.inverse)
    return cut, first


def cut_extent(
    work: Work, inverse: torch.Tensor, cut: RowCuts
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the mass of a prefix, float64, and its number of tokens, int64. Shapes ``(D,)``.

    Args:
        work: The D rows.
        inverse: Shape ``(D,)``, float64, 1 / T.
        cut: The end of the prefix.
    """
    above, at = work.passes.masses_at(work.rows, inverse, cut.value)
    count_above, count_at = work.plain.counts_at(work.rows, cut.value)
    taken = torch.minimum(cut.place, count_at, out=work.scratch.integers())
    # Equal logits have equal masses, so this division leaves no remainder.
    factor, divisor = work.scratch.floats().copy_(taken), work.scratch.floats().copy_(count_at)
    mass = at.div_(divisor.clamp_(min=1.0)).mul_(factor).add_(above)
    return mass, count_above.add_(taken)


def places(
    landing: RowLandings, count: torch.Tensor, scratch: Scratch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns how many tokens with one logit reach a goal, int64, and the mass of each, float64.

    Args:
        landing: The logit and what is missing there.
        count: Shape ``(D,)``, int64, number of tokens with that logit.
        scratch: Lends memory for D rows, also for the results.
    """
    mass = scratch.floats().copy_(count)
    torch.div(landing.mass, mass, out=mass)
    # At least 1: rows that turn out to be undecidable have no mass, and whole numbers no quotient.
    whole = scratch.integers().copy_(mass).clamp_(min=1)
    missing = scratch.integers().copy_(landing.missing)
    return missing.add_(whole).sub_(1).div_(whole, rounding_mode="floor"), mass


def _at_least(values: FloatArray) -> FloatArray:
    """Returns the smallest float32 numbers that are not below *values*, as float64."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    upper = np.nextafter(nearest, np.float32(np.inf))
    return np.where(nearest < values, upper, nearest).astype(np.float64)


def _top_k(work: Work, kept: torch.Tensor) -> RowCuts:
    first = work.descent.first_totals(work.passes, work.rows, None)
    landing = work.descent.reach(work.passes, work.rows, None, kept, first)
    return RowCuts(landing.value, work.scratch.integers().copy_(landing.missing))


def _top_p(work: Work, device: DeviceFilters, cut: RowCuts | None, first: torch.Tensor) -> RowCuts:
    scratch = work.scratch
    if cut is None:
        cut = RowCuts(scratch.take(torch.float32).fill_(-torch.inf), _all_places(work))
        total = first[:, -1]
    else:
        total, _ = cut_extent(work, device.plain, cut)
    goal = ceil_products(device.top_p, total, scratch)
    landing = work.descent.reach(work.passes, work.rows, device.plain, goal, first)
    place, _ = places(landing, work.plain.counts_at(work.rows, landing.value)[1], scratch)
    # 1 keeps all: with truncate_first, a mass that is 0 at temperature 1 may count at another.
    active = torch.lt(device.top_p, 1.0, out=scratch.flags())
    return RowCuts(
        torch.where(active, landing.value, cut.value, out=scratch.take(torch.float32)),
        torch.where(active, place, cut.place, out=scratch.integers()),
    )


def _smaller(one: RowCuts, other: RowCuts, scratch: Scratch) -> RowCuts:
    value = torch.maximum(one.value, other.value, out=scratch.take(torch.float32))
    # The place of a cut at a lower logit does not limit the prefix.
    nowhere = torch.iinfo(torch.int64).max
    first, second = (
        scratch.integers()
        .copy_(cut.place)
        .masked_fill_(torch.ne(cut.value, value, out=scratch.flags()), nowhere)
        for cut in (one, other)
    )
    return RowCuts(value, torch.minimum(first, second, out=first))


def _all_places(work: Work) -> torch.Tensor:
    return work.scratch.integers().fill_(work.rows.vocab_size)
