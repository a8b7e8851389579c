# SPDX-License-Identifier: Apache-2.0
"""Triton kernels that compute masses and add them up, without storing anything per token.

The masses are those of :mod:`qr_sampler.selection.masses`, bit for bit, provided that the kernels
are compiled with :data:`COMPILE_OPTIONS`. Totals are whole numbers up to 2**53, so that atomic
additions give the same sum in any order.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from qr_sampler.selection import masses
from qr_sampler_accel.device.passes import BINS

__all__ = [
    "COMPILE_OPTIONS",
    "add_masses_at",
    "add_moments",
    "fill_histogram",
    "find_lowest",
    "find_maxima",
    "store_masses",
]

COMPILE_OPTIONS: Final = {"enable_fp_fusion": False}
"""A fused multiply-add rounds once where the definition of masses rounds twice."""

# Kernels may read global names only if they are compile-time constants.
_FLOOR = tl.constexpr(masses.EXPONENT_FLOOR)
_LOG2_E = tl.constexpr(masses.LOG2_E)
_LN2_HIGH = tl.constexpr(masses.LN2_HIGH)
_LN2_LOW = tl.constexpr(masses.LN2_LOW)
_ROUNDER = tl.constexpr(masses.ROUNDER)
_TAYLOR = tl.constexpr(masses.TAYLOR)
_BINS = tl.constexpr(BINS)

_PARTS = ("maximum", "inverse", "base", "out", "value", "above", "at", "farthest", "least")

# By default Triton compiles a kernel again for numbers divisible by 16 and for addresses that are:
# parts of one buffer start anywhere, and no compiler may run in the middle of a text.
_kernel = triton.jit(
    do_not_specialize=["shift", "parts"],
    do_not_specialize_on_alignment=list(_PARTS),
)


@triton.jit
def _load(logits, stride, columns, block: tl.constexpr):
    """Returns the logits of one program, -inf beyond the end of the row, and what is inside it."""
    offsets = tl.program_id(1) * block + tl.arange(0, block)
    inside = offsets < columns
    start = logits + tl.program_id(0).to(tl.int64) * stride
    return tl.load(start + offsets, mask=inside, other=float("-inf")), inside


@triton.jit
def _masses(distance, inverse, unit):
    """Returns ``fixed_point_masses``: the same operations in the same order."""
    y = tl.maximum(distance.to(tl.float64) * inverse, _FLOOR)
    shifted = y * _LOG2_E + _ROUNDER
    exponent_bits = shifted.to(tl.int64, bitcast=True) << 52
    k = shifted - _ROUNDER
    y = y - k * _LN2_HIGH
    y = y - k * _LN2_LOW
    result = y * _TAYLOR[0] + _TAYLOR[1]
    for degree in tl.static_range(2, 12):
        result = result * y + _TAYLOR[degree]
    result = (result.to(tl.int64, bitcast=True) + exponent_bits).to(tl.float64, bitcast=True)
    # Adding and subtracting it rounds to the nearest whole number, ties to even.
    return (result * unit + _ROUNDER) - _ROUNDER


@triton.jit
def _keys(x):
    """Returns integers that grow as the logit falls, the same for both zeros."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.int32, bitcast=True)
    return ~(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@_kernel
def find_maxima(logits, stride, columns, out, block: tl.constexpr):
    """Stores the maximum of each program, NaN if there is one among its logits."""
    x, _ = _load(logits, stride, columns, block)
    broken = tl.max((x != x).to(tl.int32), 0) > 0
    largest = tl.where(broken, float("nan"), tl.max(x, 0))
    tl.store(out + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), largest)


@_kernel
def add_moments(logits, stride, columns, maximum, out, parts, block: tl.constexpr):
    """Stores the sums of each program over e, e d and e d**2 in three tables, *parts* apart."""
    row = tl.program_id(0)
    x, inside = _load(logits, stride, columns, block)
    y = tl.maximum((x - tl.load(maximum + row)).to(tl.float64), _FLOOR)
    weight = tl.where(inside, tl.exp(y), 0.0)
    first = weight * y
    place = out + row * tl.num_programs(1) + tl.program_id(1)
    tl.store(place, tl.sum(weight, 0))
    tl.store(place + parts, tl.sum(first, 0))
    tl.store(place + 2 * parts, tl.sum(first * y, 0))


@_kernel
def fill_histogram(
    logits,
    stride,
    columns,
    maximum,
    inverse,
    unit,
    base,
    out,
    shift,
    weighted: tl.constexpr,
    block: tl.constexpr,
):
    """Adds to bin ``(key >> shift) - base`` of *out* the mass of each token, or 1."""
    row = tl.program_id(0)
    x, inside = _load(logits, stride, columns, block)
    place = (_keys(x) >> shift).to(tl.int64) - tl.load(base + row)
    inside = inside & (place >= 0) & (place < _BINS)
    if weighted:
        mass = _masses(x - tl.load(maximum + row), tl.load(inverse + row), unit)
        inside = inside & (mass > 0.0)
    else:
        mass = tl.full((block,), 1.0, tl.float64)
    tl.atomic_add(out + row.to(tl.int64) * _BINS + place, mass, mask=inside, sem="relaxed")


@_kernel
def add_masses_at(
    logits, stride, columns, maximum, inverse, unit, value, above, at, block: tl.constexpr
):
    """Adds to *above* the mass of the tokens with a logit above *value*, to *at* of those at it."""
    row = tl.program_id(0)
    x, inside = _load(logits, stride, columns, block)
    mass = _masses(x - tl.load(maximum + row), tl.load(inverse + row), unit)
    limit = tl.load(value + row)
    tl.atomic_add(above + row, tl.sum(tl.where(x > limit, mass, 0.0), 0), sem="relaxed")
    tl.atomic_add(at + row, tl.sum(tl.where(inside & (x == limit), mass, 0.0), 0), sem="relaxed")


@_kernel
def find_lowest(
    logits,
    stride,
    columns,
    maximum,
    inverse,
    unit,
    farthest,
    least,
    out,
    block: tl.constexpr,
):
    """Raises *out* to the greatest key with a distance >= *farthest* and a mass >= *least*."""
    row = tl.program_id(0)
    x, inside = _load(logits, stride, columns, block)
    distance = x - tl.load(maximum + row)
    mass = _masses(distance, tl.load(inverse + row), unit)
    kept = inside & (distance >= tl.load(farthest + row)) & (mass >= tl.load(least + row))
    tl.atomic_max(out + row, tl.max(tl.where(kept, _keys(x), -0x80000000), 0), sem="relaxed")


@_kernel
def store_masses(logits, stride, columns, maximum, inverse, unit, out, block: tl.constexpr):
    """Stores the mass of each token in the rows of *out*, which have *columns* columns."""
    row = tl.program_id(0)
    x, inside = _load(logits, stride, columns, block)
    mass = _masses(x - tl.load(maximum + row), tl.load(inverse + row), unit)
    place = row.to(tl.int64) * columns + tl.program_id(1) * block + tl.arange(0, block)
    tl.store(out + place, mass, mask=inside)
