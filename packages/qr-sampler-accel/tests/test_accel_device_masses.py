# SPDX-License-Identifier: Apache-2.0
"""Masses and products in torch are those of the reference, to the last bit."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qr_sampler.selection.masses import fixed_point_masses

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")

from qr_sampler_accel.device.masses import (  # noqa: E402
    MassBuffers,
    ceil_products,
    fill_exponents,
    fill_masses,
)
from qr_sampler_accel.device.scratch import Scratch  # noqa: E402

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("exponent", [35, 30])
def test_masses_are_equal_bit_for_bit(device: str, exponent: int) -> None:
    rng = np.random.default_rng(1)
    scales = 10.0 ** rng.uniform(-45.0, 38.0, (4, 5_000))
    near = -rng.exponential(8.0, (4, 5_000))
    distance = np.concatenate([near, -scales, [[0.0, -0.0, -np.inf, -3.4e38]] * 4], axis=1)
    logits = distance.astype(np.float32)
    inverse = 1.0 / np.array([1.0, 0.7, 1e-3, 1e3])
    buffers = MassBuffers(*logits.shape, torch.device(device))
    fill_exponents(buffers, torch.from_numpy(logits).to(device), torch.zeros(4, device=device))
    fill_masses(buffers, torch.from_numpy(inverse).to(device), 2.0**exponent)
    expected = fixed_point_masses(logits, inverse[:, np.newaxis], exponent)
    np.testing.assert_array_equal(buffers.mass.cpu().numpy(), expected)


def ceil_of(factor: float, total: int) -> int:
    return math.ceil(Fraction(factor) * total)


def torch_ceil(factor: float, total: int, device: str = "cpu") -> int:
    pair = (torch.tensor([value], dtype=torch.float64) for value in (factor, total))
    columns = [value.to(device) for value in pair]
    (result,) = ceil_products(*columns, Scratch(1, torch.device(device))).tolist()
    return int(result)


factors = st.one_of(
    st.floats(0.0, 1.0),
    st.floats(0.0, 2.0**-1020),
    st.sampled_from([0.0, 5e-324, 2.0**-1022, 2.0**-53, 0.5, 1.0 - 2.0**-53, 1.0]),
)
totals = st.one_of(st.integers(1, 2**53), st.integers(0, 52).map(lambda power: 2**power))


@settings(max_examples=1_200, deadline=None)
@given(factors, totals)
@example(1.0 - 2.0**-53, 2**53)
@example(1.0, 2**53)
@example(5e-324, 2**53)
@example(2.0**-53, 2**53)
def test_products_are_rounded_up_exactly(factor: float, total: int) -> None:
    assert torch_ceil(factor, total) == ceil_of(factor, total)


@settings(max_examples=800, deadline=None)
@given(st.integers(1, 2**53), st.data())
def test_products_next_to_whole_numbers_are_rounded_up_exactly(
    total: int, data: st.DataObject
) -> None:
    """Around part / total the product is a whole number, or misses it by less than one rounding."""
    edge = data.draw(st.integers(0, total)) / total
    for factor in (math.nextafter(edge, 0.0), edge, min(math.nextafter(edge, 1.0), 1.0)):
        assert torch_ceil(factor, total) == ceil_of(factor, total)


@pytest.mark.parametrize("device", DEVICES)
def test_products_of_many_boundaries_at_once(device: str) -> None:
    rng = np.random.default_rng(2)
    total = rng.integers(1, 2**53, 20_000)
    edges = rng.integers(1, total + 1) / total
    for factor in (edges, np.nextafter(edges, 0.0), np.minimum(np.nextafter(edges, 1.0), 1.0)):
        pair = (
            torch.from_numpy(values).to(device) for values in (factor, total.astype(np.float64))
        )
        scratch = Scratch(len(factor), torch.device(device))
        found = ceil_products(*pair, scratch).cpu().numpy().astype(np.int64).tolist()
        pairs = zip(factor.tolist(), total.tolist(), strict=True)
        assert found == [ceil_of(*values) for values in pairs]
