# SPDX-License-Identifier: Apache-2.0
"""Typical-p on a device, for the rows that ask for it: the one filter that sorts."""

from __future__ import annotations

from typing import Final

import torch

from qr_sampler.selection.filters import ENERGY_STEPS
from qr_sampler.selection.masses import MASSLESS
from qr_sampler_accel.device.masses import MassBuffers, ceil_products, fill_exponents, fill_masses
from qr_sampler_accel.device.passes import DeviceRows
from qr_sampler_accel.device.scratch import Scratch

__all__ = ["typical_ranges"]

LAST: Final = 2**62
"""Sorts after every token that is left."""


def typical_ranges(
    rows: DeviceRows, inverse: torch.Tensor, kept: torch.Tensor, typical_p: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the ranks that typical-p keeps; see ``qr_sampler.selection.filters.typical_range``.

    Args:
        rows: N rows.
        inverse: Shape ``(N,)``, float64, 1 / T of the draw.
        kept: Shape ``(N,)``, int64, number of leading ranks that the other filters kept.
        typical_p: Shape ``(N,)``, float64, in (0, 1).

    Returns:
        Three tensors of shape ``(N,)``: the mass before the first kept rank and the mass of all
        kept ranks, float64, and the number of kept ranks, int64.
    """
    size = rows.vocab_size
    masses, energy = _ranked(rows, inverse)
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
    return before, _mass_before(masses, rank, stop) - before, stop - start


def _ranked(rows: DeviceRows, inverse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns masses, float64, and energies, int64, in rank order. Shapes ``(N, V)``."""
    ranked = torch.sort(rows.logits, dim=1, descending=True).values
    buffers = MassBuffers(rows.count, rows.vocab_size, ranked.device)
    fill_exponents(buffers, ranked, rows.maximum)
    energy = (buffers.exponent * inverse[:, None]).clamp_(min=MASSLESS).mul_(-ENERGY_STEPS)
    fill_masses(buffers, inverse, rows.unit)
    return buffers.mass, energy.round_().to(torch.int64)


def _mass_before(masses: torch.Tensor, rank: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    return torch.where(rank < end[:, None], masses, 0.0).sum(1)
