# SPDX-License-Identifier: Apache-2.0
"""Masses: the same bits everywhere, as near to exp as a whole number can be, exact sums."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from qr_sampler.selection import (
    ceil_product,
    ceil_products,
    distances,
    exponentials,
    fixed_point_masses,
    masses,
    unit_exponent,
)
from qr_sampler.selection.masses import LN2_HIGH, LN2_LOW, LOG2_E, TAYLOR
from qr_sampler.settings import MAX_TEMPERATURE, MIN_TEMPERATURE

UNIT = 2.0**35
LN2 = Decimal("0.6931471805599453094172321214581765680755001343602552541")
TEMPERATURES = [MIN_TEMPERATURE, 0.1, 0.7, 1.0, 1.3, 2.5, MAX_TEMPERATURE]


def plain_exponential(distance: float, inverse: float) -> float:
    """exp(distance * inverse) by additions, multiplications and the bits of 2**k."""
    y = max(distance * inverse, -700.0)
    rounder = 1.5 * 2.0**52
    k = (y * LOG2_E + rounder) - rounder
    r = (y - k * LN2_HIGH) - k * LN2_LOW
    result = TAYLOR[0] * r + TAYLOR[1]
    for coefficient in TAYLOR[2:]:
        result = result * r + coefficient
    (power,) = struct.unpack("<d", struct.pack("<q", (int(k) + 1023) << 52))
    return float(result * power)


def plain_mass(distance: float, inverse: float, exponent: int = 35) -> float:
    """Adding 2**52 leaves no room for a fraction; float64 rounds it off, ties to even."""
    return (plain_exponential(distance, inverse) * 2.0**exponent + 2.0**52) - 2.0**52


def assorted_distances(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype]:
    """float32 numbers of all magnitudes, most of them where masses are neither 0 nor 1."""
    magnitudes = [rng.uniform(0.0, 26.0, count), 10.0 ** rng.uniform(-45.0, 38.0, count)]
    special = [0.0, -0.0, 5e-324, 1e-45, 24.95, 24.96, 700.0, 3e38, np.inf]
    return -np.concatenate([*magnitudes, special]).astype(np.float32)


def test_the_constants_are_those_of_the_method() -> None:
    """LN2_HIGH times an integer below 2**20 is exact, and both parts make up ln 2 to 2**-85."""
    assert LN2_HIGH.as_integer_ratio()[0].bit_length() <= 33
    with localcontext() as context:
        context.prec = 50
        assert abs(Decimal(LN2_HIGH) + Decimal(LN2_LOW) - LN2) < Decimal(2) ** -85
        assert abs(Decimal(LOG2_E) * LN2 - 1) < Decimal(2) ** -53
    assert list(TAYLOR) == [1.0 / math.factorial(degree) for degree in range(11, -1, -1)]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_every_bit_equals_plain_python(temperature: float) -> None:
    rng = np.random.default_rng(int(temperature * 1_000))
    inverse = 1.0 / temperature
    distance = assorted_distances(rng, 2_000)
    with np.errstate(over="ignore"):
        scaled = (distance[:2_000] * np.float32(temperature)).astype(np.float32)
    distance = np.concatenate([distance, scaled])
    found = exponentials(distance, inverse)
    assert found.dtype == np.float64
    assert found.tolist() == [plain_exponential(d, inverse) for d in distance.tolist()]
    for exponent in (35, 33):
        masses = fixed_point_masses(distance, inverse, exponent).tolist()
        assert masses == [plain_mass(d, inverse, exponent) for d in distance.tolist()]


def test_rows_layouts_and_broadcasting_do_not_matter() -> None:
    """SIMD loops treat the ends of a row, and strided rows, differently; the result is the same."""
    rng = np.random.default_rng(3)
    distance = -rng.uniform(0.0, 27.0, (5, 37)).astype(np.float32)
    inverse = 10.0 ** rng.uniform(-1.0, 1.0, (5, 1))
    together = fixed_point_masses(distance, inverse)
    for line in range(5):
        value = float(inverse[line, 0])
        assert fixed_point_masses(distance[line, 1:], value).tolist() == together[line, 1:].tolist()
        assert (fixed_point_masses(distance[line, ::3], value) == together[line, ::3]).all()
    assert (fixed_point_masses(distance.T.copy().T, inverse) == together).all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_every_mass_is_within_half_a_unit_of_the_exponential(temperature: float) -> None:
    rng = np.random.default_rng(17)
    y = -np.concatenate([rng.uniform(0.0, 25.5, 1_500), 10.0 ** rng.uniform(-12.0, 0.0, 300)])
    distance = (y * temperature).astype(np.float32)
    masses = fixed_point_masses(distance, 1.0 / temperature).tolist()
    tolerance = Decimal("0.5") + Decimal(2) ** -10
    with localcontext() as context:
        context.prec = 40
        unit, t = Decimal(2) ** 35, Decimal(temperature)
        for d, mass in zip(distance.tolist(), masses, strict=True):
            exact = (Decimal(d) / t).exp() * unit
            assert abs(Decimal(mass) - exact) <= tolerance, (d, mass, exact)


def test_exponentials_are_accurate_down_to_the_floor() -> None:
    y = -np.random.default_rng(4).uniform(0.0, 700.0, 2_000).astype(np.float32)
    with localcontext() as context:
        context.prec = 40
        for d, found in zip(y.tolist(), exponentials(y, 1.0).tolist(), strict=True):
            exact = Decimal(d).exp()
            assert abs(Decimal(found) / exact - 1) <= Decimal(2) ** -45
    floor = exponentials(np.array([-700.0, -701.0, -3e38, -np.inf], dtype=np.float32), 1.0)
    assert len(set(floor.tolist())) == 1
    assert floor[0] == pytest.approx(math.exp(-700.0), rel=1e-13)


def neighbours(centre: float, count: int = 301) -> np.ndarray[tuple[int], np.dtype]:
    """*count* consecutive non-positive float32 numbers around *centre*, ascending."""
    bits = int(np.array([abs(centre)], dtype=np.float32).view(np.uint32)[0])
    patterns = np.arange(bits + count // 2, max(bits - count // 2, 0) - 1, -1)
    return -patterns.astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_exponentials_grow_with_the_logit(temperature: float) -> None:
    """At zero, where k jumps, and at the edges of the grid; the neighbours are consecutive."""
    edges = [0.0, *(-(n + 0.5) * math.log(2.0) for n in range(40))]
    edges += [math.log((mass + 0.5) / UNIT) for mass in (0, 1, 2, 1_000, 2**30)]
    strictly = 0
    for edge in edges:
        distance = neighbours(edge * temperature)
        assert (np.diff(distance.astype(np.float64)) > 0.0).all()
        found = np.diff(exponentials(distance, 1.0 / temperature))
        assert (found >= 0.0).all(), edge
        assert (np.diff(fixed_point_masses(distance, 1.0 / temperature)) >= 0.0).all()
        strictly += int((found > 0.0).all())
    assert strictly >= len(edges) - 1, "of float32 numbers, exp() confuses only those near zero"


def test_the_maximum_has_the_unit_and_masked_tokens_have_nothing() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0.0, 30.0, (200, 50)).astype(np.float32)
    logits[:, 7] = -np.inf
    inverse = 1.0 / 10.0 ** rng.uniform(-3.0, 3.0, (200, 1))
    masses = fixed_point_masses(distances(logits), inverse)
    assert (masses.max(axis=1) == UNIT).all()
    assert (masses[np.arange(200), logits.argmax(axis=1)] == UNIT).all()
    assert (masses[:, 7] == 0.0).all()
    assert (masses == np.rint(masses)).all()
    assert not np.signbit(masses).any()


def test_distances_too_large_for_float32_are_infinite() -> None:
    logits = np.array([[3e38, -np.inf, -3e38, 3e38]], dtype=np.float32)
    assert distances(logits).tolist() == [[0.0, -math.inf, -math.inf, 0.0]]
    assert fixed_point_masses(distances(logits), 1e3).tolist() == [[UNIT, 0.0, 0.0, UNIT]]


def test_masses_vanish_below_half_a_unit() -> None:
    edge = neighbours(-36.0 * math.log(2.0), 2_001)
    masses = fixed_point_masses(edge, 1.0)
    with localcontext() as context:
        context.prec = 40
        half = Decimal(2) ** -36
        assert masses.tolist() == [float(Decimal(d).exp() > half) for d in edge.tolist()]
    assert set(masses.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("vocab_size", [1, 7, 4_096, 151_936, 2**18, 2**18 + 1, 2**19])
def test_sums_do_not_depend_on_the_order(vocab_size: int) -> None:
    rng = np.random.default_rng(vocab_size)
    flat = np.zeros(vocab_size, dtype=np.float32)
    spread = -np.abs(rng.normal(0.0, 3.0, vocab_size)).astype(np.float32)
    for distance in (flat, spread):
        masses = fixed_point_masses(distance, 1.0, unit_exponent(vocab_size))
        exact = sum(int(mass) for mass in masses.tolist())
        assert exact <= 2**53
        for _ in range(3):
            rng.shuffle(masses)
            assert masses.sum() == exact
            assert np.cumsum(masses)[-1] == exact


def test_the_unit_is_the_largest_power_of_two_whose_totals_are_exact() -> None:
    assert [unit_exponent(v) for v in (1, 2, 50_257, 262_144)] == [35] * 4
    assert [unit_exponent(v) for v in (262_145, 2**19, 2**19 + 1, 2**20)] == [34, 34, 33, 33]
    for vocab_size in (2**18, 2**18 + 1, 2**19, 2**21 - 1, 2**22 + 1):
        assert vocab_size * 2 ** unit_exponent(vocab_size) <= 2**53
        assert vocab_size * 2 ** (unit_exponent(vocab_size) + 1) > 2**53


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 0.7, 1.0, 2.5, 1e3])
def test_normalised_masses_are_the_softmax(temperature: float) -> None:
    """Each token is off by half a unit at most, and 5,000 of them by 2**-24 of the whole."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0.0, 4.0, (20, 5_000)).astype(np.float32)
    # Distances are rounded to float32; logits on a coarse grid have exact ones.
    logits = np.rint(logits * np.float32(2.0**12)) / np.float32(2.0**12)
    masses = fixed_point_masses(distances(logits), 1.0 / temperature)
    totals = masses.sum(axis=1, keepdims=True)
    exact = softmax(logits.astype(np.float64) / temperature, axis=1)
    distance = np.abs(masses / totals - exact).sum(axis=1) / 2.0
    assert distance.max() < 2.0**-24
    assert (distance <= 0.5 * 5_000 / totals[:, 0] + 2.0**-45).all()


@settings(max_examples=500)
@given(st.floats(0.0, 1.0), st.integers(0, 2**53))
def test_products_are_rounded_up_exactly(factor: float, total: int) -> None:
    product = ceil_product(factor, total)
    assert product == math.ceil(Fraction(factor) * total)
    together = ceil_products(np.array([factor]), np.array([total], dtype=np.int64))
    assert together.dtype == np.int64
    assert together.tolist() == [product]


def test_products_see_what_float64_would_round_away() -> None:
    total = 2**53
    assert ceil_product(0.5 + 2.0**-53, total) == 2**52 + 1
    assert ceil_product(5e-324, total) == 1
    assert ceil_product(0.0, total) == 0
    assert ceil_product(1.0, total) == total


def halves(count: int, rng: np.random.Generator) -> Iterator[tuple[np.float32, float]]:
    """Yields distances and 1 / T whose mass lies as near as floats permit to n + 1/2 units."""
    for n in (0, 1, 2, 1_000, 2**20, 2**34, 2**35 - 2):
        exponent = math.log((n + 0.5) / 2.0**35)
        for _ in range(count):
            distance = np.float32(-rng.uniform(1e-3, 20.0))
            inverse = exponent / float(distance)
            for nearby in range(-2, 3):
                yield distance, inverse * (1.0 + nearby * 2.0**-52)


def wrong_masses(monkeypatch: pytest.MonkeyPatch, error: float) -> int:
    """Counts masses other than the defined ones, by an exponential that is off by *error*."""
    rng, wrong = np.random.default_rng(17), 0
    exact = np.exp

    def biased(values: NDArray[np.float64], out: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = exact(values, out=out)
        result *= 1.0 + error
        return result

    with monkeypatch.context() as patch:
        patch.setattr(masses.np, "exp", biased)
        for distance, inverse in halves(40, rng):
            row = np.array([0.0, distance], dtype=np.float32)
            found = masses.library_masses(row[1:], inverse)
            wrong += found.tolist() != fixed_point_masses(row[1:], inverse).tolist()
    return wrong


@pytest.mark.parametrize("share", [-0.9, 0.0, 0.9])
def test_masses_by_a_library_are_the_defined_ones(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever error the library's exponential has, within the bound that is granted to it."""
    assert wrong_masses(monkeypatch, share * masses.LIBRARY_ERROR) == 0


def test_without_an_allowance_for_the_library_masses_would_be_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = 0.9 * masses.LIBRARY_ERROR
    monkeypatch.setattr(masses, "LIBRARY_ERROR", 0.0)
    assert wrong_masses(monkeypatch, error) >= 50
