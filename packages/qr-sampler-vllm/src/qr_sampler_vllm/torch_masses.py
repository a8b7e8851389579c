# SPDX-License-Identifier: Apache-2.0
"""The masses of :mod:`qr_sampler.selection.masses` in torch, equal to them bit for bit.

Every step is a torch operation of its own with one correctly rounded result, as in NumPy. No
operation multiplies and adds at once: a fused multiply-add rounds differently.
"""

from __future__ import annotations

from typing import Final

import torch

from qr_sampler.selection.masses import (
    EXPONENT_FLOOR,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    ROUNDER,
    TAYLOR,
)

__all__ = ["MassBuffers", "ceil_products", "fill_exponents", "fill_masses"]

SPLITTER: Final = 2.0**27 + 1.0
"""Cuts a float64 into two halves of 26 bits (Veltkamp 1968)."""


class MassBuffers:
    """Memory for the masses of a batch of rows.

    Args:
        rows: Number of rows C.
        columns: Number of tokens V.
        device: Where the memory lies.
    """

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        shape = (rows, columns)
        self.distance = torch.empty(shape, dtype=torch.float32, device=device)
        self.exponent = torch.empty(shape, dtype=torch.float64, device=device)
        self.scratch = torch.empty(shape, dtype=torch.float64, device=device)
        self.mass = torch.empty(shape, dtype=torch.float64, device=device)
        self.flag = torch.empty(shape, dtype=torch.bool, device=device)

    def leading(self, rows: int) -> MassBuffers:
        """Returns the same memory for the first *rows* rows only."""
        part = object.__new__(MassBuffers)
        for name, tensor in vars(self).items():
            setattr(part, name, tensor[:rows])
        return part


def fill_exponents(buffers: MassBuffers, logits: torch.Tensor, maximum: torch.Tensor) -> None:
    """Sets *distance* to logit minus maximum and *exponent* to the same in float64.

    Args:
        buffers: Of the shape of *logits*.
        logits: Shape ``(C, V)``, float32.
        maximum: Shape ``(C,)``, float32.
    """
    torch.sub(logits, maximum[:, None], out=buffers.distance)
    buffers.exponent.copy_(buffers.distance)


def fill_masses(buffers: MassBuffers, inverse: torch.Tensor, unit: float) -> None:
    """Sets *mass* to what ``fixed_point_masses`` returns; uses up *exponent* and *scratch*.

    Args:
        buffers: With *exponent* filled in.
        inverse: Shape ``(C,)``, float64, 1 / T.
        unit: The mass of the most probable token.
    """
    y, k, result = buffers.exponent, buffers.scratch, buffers.mass
    y.mul_(inverse[:, None]).clamp_(min=EXPONENT_FLOOR)
    torch.mul(y, LOG2_E, out=k)
    k.add_(ROUNDER).sub_(ROUNDER)
    y.sub_(torch.mul(k, LN2_HIGH, out=result))
    y.sub_(torch.mul(k, LN2_LOW, out=result))
    torch.mul(y, TAYLOR[0], out=result)
    result.add_(TAYLOR[1])
    for coefficient in TAYLOR[2:]:
        result.mul_(y).add_(coefficient)
    # k is a whole number again in the lowest bits; bit 52 is where the exponent field begins.
    exponent_bits = k.add_(ROUNDER).view(torch.int64).bitwise_left_shift_(52)
    result.view(torch.int64).add_(exponent_bits)
    result.mul_(unit).round_()


def ceil_products(factors: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
    """Returns ceil(factor * total), exact.

    The product and its rounding error are found with Dekker's algorithm (Dekker 1971, Numerische
    Mathematik 18). A product that is no whole number is farther from the next one than its error
    can reach. One that is gets corrected where the error is positive. Below 1, where the algorithm
    could underflow, the answer is 1 unless the factor is 0.

    Args:
        factors: Float64, in [0, 1].
        totals: Float64, whole numbers in [1, 2**53], the same shape.

    Returns:
        The same shape, float64, whole numbers.
    """
    product = factors * totals
    factor_high, factor_low = _halves(factors)
    total_high, total_low = _halves(totals)
    error = factor_high * total_high
    error = error.sub_(product)
    error = error.add_(factor_high * total_low)
    error = error.add_(factor_low * total_high)
    error = error.add_(factor_low * total_low)
    whole = torch.ceil(product)
    exceeds = (error > 0.0).logical_and_(whole == product)
    least = (factors > 0.0).to(torch.float64)
    return torch.maximum(torch.where(product < 1.0, least, whole + exceeds), least)


def _halves(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = values * SPLITTER
    high = scaled - (scaled - values)
    return high, values - high
