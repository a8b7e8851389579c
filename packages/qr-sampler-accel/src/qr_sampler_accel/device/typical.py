# SPDX-License-Identifier: Apache-2.0
"""Typical-p on a device, for the rows that ask for it: the one filter that sorts."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from qr_sampler.selection.filters import ENERGY_STEPS
from qr_sampler.selection.masses import MASSLESS
from qr_sampler_accel.device.masses import MassBuffers, ceil_products, fill_exponents, fill_masses
from qr_sampler_accel.device.passes import DeviceRows
from qr_sampler_accel.device.scratch import Scratch
from qr_sampler_accel.device.truncation import RowCuts

__all__ = ["TypicalRanges", "typical_ranges"]

LAST: Final = 2**62
"""Sorts after every token that is left."""


class TypicalRanges(NamedTuple):
    """The ranks that typical-p keeps. Shapes ``(N,)``."""

    before: torch.Tensor
    """Float64, mass before the first of them."""
    mass: torch.Tensor
    """Float64, their mass."""
    count: torch.Tensor
    """Int64, how many there are."""
    first: RowCuts
    """The end of the prefix whose last token is the first that is kept."""
    last: RowCuts
    """The end of the prefix whose last token is the last that is kept."""


def typical_ranges(
    rows: DeviceRows, inverse: torch.Tensor, kept: torch.Tensor, typical_p: torch.Tensor
) -> TypicalRanges:
    """Returns the ranks that typical-p keeps; see ``qr_sampler.selection.filters.typical_range``.

    Args:
        rows: N rows.
        inverse: Shape ``(N,)``, float64, 1 / T of the draw.
        kept: Shape ``(N,)``, int64, number of leading ranks that the other filters kept.
        typical_p: Shape ``(N,)``, float64, in (0, 1).
    """
    size = rows.vocab_size
    logits, masses, energy = _ranked(rows, inverse)
    rank = torch.arange(size, device=kept.device)[None, :]
    left = rank < kept[:, None]
    masses.masked_fill_(~left, 0.0)
    weights = masses.to(torch.int64) >> 10
    mean = (weights * energy).sum(1, keepdim=True) // weights.sum(1, keepdim=True).clamp_(min=1)
    # From the mean outwards on both sides; of two tokens equally far, the more probable one first.
    side = torch.where(energy < mean, size - 1 - rank, size + rank)
    outwards = torch.where(left, (energy - mean).abs_() * (2 * size) + side, LAST)
    order = torch.argsort(outwards, dim=1)
    running = masses.gather(1, order).cumsum(1)
    scratch = Scratch(len(typical_p), typical_p.device)
    goal = ceil_products(typical_p, running[:, -1], scratch)
    count = (running < goal[:, None]).sum(1) + 1
    chosen = rank < count[:, None]
    start = torch.where(chosen, order, size).amin(1)
    stop = torch.where(chosen, order, -1).amax(1) + 1
    before = _mass_before(masses, rank, start)
    return TypicalRanges(
        before,
        _mass_before(masses, rank, stop) - before,
        stop - start,
        _cut_at(logits, start),
        _cut_at(logits, stop - 1),
    )


def _ranked(
    rows: DeviceRows, inverse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns logits, masses, float64, and energies, int64, in rank order. Shapes ``(N, V)``."""
    ranked = torch.sort(rows.logits, dim=1, descending=True).values
    buffers = MassBuffers(rows.count, rows.vocab_size, ranked.device)
    fill_exponents(buffers, ranked, rows.maximum)
    energy = (buffers.exponent * inverse[:, None]).clamp_(min=MASSLESS).mul_(-ENERGY_STEPS)
    fill_masses(buffers, inverse, rows.unit)
    return ranked, buffers.mass, energy.round_().to(torch.int64)


def _mass_before(masses: torch.Tensor, rank: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    return torch.where(rank < end[:, None], masses, 0.0).sum(1)


def _cut_at(ranked: torch.Tensor, rank: torch.Tensor) -> RowCuts:
    """Returns the end of the prefix whose last token has the given rank."""
    value = ranked.gather(1, rank[:, None])
    return RowCuts(value[:, 0], rank + 1 - (ranked > value).sum(1))
