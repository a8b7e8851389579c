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
from qr_sampler_accel.device.scratch import Scratch

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

    def flags_as_integers(self) -> torch.Tensor:
        """Returns *flag* as int64, in the memory of *exponent*.

        torch adds up truth values by way of such a tensor, which it would allocate.
        """
        return self.exponent.view(torch.int64).copy_(self.flag)


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


def ceil_products(factors: torch.Tensor, totals: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """Returns ceil(factor * total), exact.

    The product and its rounding error are found with Dekker's algorithm (Dekker 1971, Numerische
    Mathematik 18). A product that is no whole number is farther from the next one than its error
    can reach. One that is gets corrected where the error is positive. Below 1, where the algorithm
    could underflow, the answer is 1 unless the factor is 0.

    Args:
        factors: Shape ``(D,)``, float64, in [0, 1].
        totals: Shape ``(D,)``, float64, whole numbers in [1, 2**53].
        scratch: Lends memory for D rows, also for the result.

    Returns:
        Shape ``(D,)``, float64, whole numbers.
    """
    product = torch.mul(factors, totals, out=scratch.floats())
    error = _product_error(factors, totals, product, scratch)
    whole = torch.ceil(product, out=scratch.floats())
    exceeds = torch.gt(error, 0.0, out=scratch.flags())
    exceeds.logical_and_(torch.eq(whole, product, out=scratch.flags()))
    least = scratch.floats().copy_(torch.gt(factors, 0.0, out=scratch.flags()))
    whole.add_(scratch.floats().copy_(exceeds))
    below = torch.lt(product, 1.0, out=scratch.flags())
    result = torch.where(below, least, whole, out=scratch.floats())
    return torch.maximum(result, least, out=result)


def _product_error(
    factors: torch.Tensor, totals: torch.Tensor, product: torch.Tensor, scratch: Scratch
) -> torch.Tensor:
    """Returns factor * total - product, exact unless it is as small as a denormal number."""
    factor_high, factor_low = _halves(factors, scratch)
    total_high, total_low = _halves(totals, scratch)
    error, term = scratch.floats(), scratch.floats()
    torch.mul(factor_high, total_high, out=error).sub_(product)
    error.add_(torch.mul(factor_high, total_low, out=term))
    error.add_(torch.mul(factor_low, total_high, out=term))
    return error.add_(torch.mul(factor_low, total_low, out=term))


def _halves(values: torch.Tensor, scratch: Scratch) -> tuple[torch.Tensor, torch.Tensor]:
    high, low = scratch.floats(), scratch.floats()
    torch.mul(values, SPLITTER, out=high)
    torch.sub(high, values, out=low)
    high.sub_(low)
    return high, torch.sub(values, high, out=low)
