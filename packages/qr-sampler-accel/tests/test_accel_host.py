# SPDX-License-Identifier: Apache-2.0
"""The compiled loops over a row against those in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from qr_sampler.selection.fast.bins import BINS, RowBins, bin_scale
from qr_sampler.selection.fast.head import (
    COLUMN_HEIGHT,
    GROUPS,
    column_count,
    column_maxima,
    leading_tokens,
)
from qr_sampler.selection.fast.passes import (
    EXP_ERROR,
    PRODUCT_ERROR,
    RowSums,
    measured_moments,
    weight_bounds,
)
from qr_sampler.selection.masses import LOG2_E, fixed_point_masses
from qr_sampler.selection.statistics import logit_deviation
from qr_sampler.testing.selection_cases import LOGIT_KINDS, random_logits

pytest.importorskip("numba", reason="needs the extra numba")

from qr_sampler_accel.host import byte_counts as compiled_counts
from qr_sampler_accel.host import leading
from qr_sampler_accel.host.arithmetic import masses as compiled_masses
from qr_sampler_accel.host.arithmetic import moments
from qr_sampler_accel.host.arithmetic import statistics as compiled_statistics
from qr_sampler_accel.host.arithmetic.masses import LANES, TABLES
from qr_sampler_accel.host.bins import bins as compiled_bins
from qr_sampler_accel.host.bins.bins import CompiledBins
from qr_sampler_accel.host.byte_counts import CompiledCounts
from qr_sampler_accel.host.leading import MOST_LEADING
from qr_sampler_accel.host.passes import CompiledPasses

SIZES = (1, 2, LANES - 1, LANES, LANES + 1, 1_024, 1_025, 2_048, 2_049, 20_001)


def typical_row(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    logits = rng.normal(0.0, 2.5, size).astype(np.float32)
    if size > 4:
        logits[rng.integers(size, size=size // 4)] = -np.inf
    logits[rng.integers(size)] = 9.0
    return logits


def test_masses_are_those_of_the_definition_bit_for_bit() -> None:
    rng = np.random.default_rng(1)
    spread = [scale * rng.random(20_000) for scale in (1e-6, 1e-2, 1.0, 30.0, 800.0)]
    distance = -np.concatenate([*spread, [0.0, -0.0, np.inf, 3e38]]).astype(np.float32)
    passes = CompiledPasses(distance.size)
    for inverse in (1.0, 1.0 / 0.7, 1.0 / 1.3, 1e3, 1e-3):
        expected = fixed_point_masses(distance, inverse, 35)
        assert passes.masses(distance, inverse, 35).tobytes() == expected.tobytes()


def powers_of(logits: NDArray[np.float32], maximum: float, scale: float) -> NDArray[np.float32]:
    """What the compiled loop makes of each logit."""
    z, e, bits, k, _ = moments.moment_memory()
    found = np.empty_like(logits)
    for start in range(0, logits.size, LANES):
        piece = logits[start : start + LANES]
        moments.fill_powers(piece, np.float32(maximum), np.float32(scale), z, e, bits, k)
        found[start : start + LANES] = e[: piece.size]
    return found


def test_every_exponential_keeps_to_its_bound() -> None:
    """Powers of 2 all over the interval of the polynomial, and exponentials over all exponents."""
    powers = np.linspace(-1.5, 0.0, 2**20).astype(np.float32)
    exact = np.exp2(powers.astype(np.float64))
    worst = np.max(np.abs(powers_of(powers, 0.0, 1.0) / exact - 1.0))
    assert 0.1 * EXP_ERROR < worst < EXP_ERROR
    lowest = powers_of(np.array([-np.inf, -3e38, -126.0, -125.0], np.float32), 0.0, 1.0)
    assert lowest.tolist() == [2.0**-125] * 4
    bits = np.arange(0, np.float32(86.0).view(np.uint32), 1 << 9, dtype=np.uint32)
    distances = -bits.view(np.float32)
    for inverse in (1.0, 1.0 / 0.7, 0.8):
        logits = distances[distances > -86.0 / inverse]
        exponents = logits.astype(np.float64) * inverse
        errors = np.abs(powers_of(logits, 0.0, inverse * LOG2_E) / np.exp(exponents) - 1.0)
        assert (errors <= EXP_ERROR - PRODUCT_ERROR * exponents).all()


@pytest.mark.parametrize("size", SIZES)
def test_sums_stay_within_the_proved_bounds(size: int) -> None:
    rng = np.random.default_rng(size)
    memory = moments.moment_memory()
    for temperature in (0.3, 1.0, 1.7):
        logits = typical_row(rng, size)
        maximum = logits.max()
        exact = np.exp((logits.astype(np.float64) - maximum) / temperature).sum()
        weight = moments.row_weight(logits, maximum, 1.0 / temperature, *memory)
        lowest, highest = weight_bounds(weight)
        assert lowest <= exact <= highest
        p = softmax(logits.astype(np.float64))
        surprisal = -np.log(p[p > 0.0])
        entropy = float((p[p > 0.0] * surprisal).sum())
        varentropy = float((p[p > 0.0] * (surprisal - entropy) ** 2).sum())
        weight, first, second = moments.row_sums(logits, maximum, *memory)
        measured = measured_moments(RowSums(weight, first / LOG2_E, second / LOG2_E**2))
        assert abs(measured.moments.entropy_nats - entropy) <= measured.entropy_error
        assert abs(measured.moments.varentropy_nats2 - varentropy) <= measured.varentropy_error
        for count in (0, 1, 2):
            found = moments.float32_moments(logits, maximum, count, memory)
            assert found[:3] == pytest.approx((*measured.moments, weight), rel=1e-9, abs=1e-12)
            assert found[3] == measured.settles(count)


def test_moments_are_settled_where_those_in_numpy_are() -> None:
    """Rows whose entropy is close to the middle between two multiples of the step, and others."""
    rng = np.random.default_rng(11)
    memory = moments.moment_memory()
    verdicts = []
    for _ in range(400):
        logits = rng.normal(0.0, rng.uniform(0.1, 3.0), 700).astype(np.float32)
        maximum = logits.max()
        weight, first, second = moments.row_sums(logits, maximum, *memory)
        measured = measured_moments(RowSums(weight, first / LOG2_E, second / LOG2_E**2))
        verdicts += [(measured.settles(count), count) for count in (1, 2)]
        found = [moments.float32_moments(logits, maximum, count, memory)[3] for count in (1, 2)]
        assert found == [settled for settled, _ in verdicts[-2:]]
    assert {(True, 1), (False, 1), (True, 2), (False, 2)} == set(verdicts)


@pytest.mark.parametrize("size", [size for size in SIZES if size > GROUPS * COLUMN_HEIGHT])
def test_the_head_holds_exactly_the_leading_tokens(size: int) -> None:
    rng = np.random.default_rng(size)
    for logits in (typical_row(rng, size), np.zeros(size, np.float32)):
        found, distance = head_of(logits)
        order = np.argsort(-logits, kind="stable")
        assert found.tolist() == order[: found.size].tolist()
        assert distance.tolist() == (logits[found] - logits.max()).tolist()
    logits = typical_row(rng, size)
    expected = leading_tokens(logits, column_maxima(logits), logits.max())
    assert head_of(logits)[0].tolist() == expected.token_ids.tolist()


def head_of(logits: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The leading tokens as compiled loops find them, and their distances."""
    maxima, groups = np.empty(column_count(logits.size), np.float32), np.empty(GROUPS, np.float32)
    ids, distance = np.empty(MOST_LEADING, np.intp), np.empty(MOST_LEADING, np.float32)
    maximum = leading.fold(logits, maxima)
    assert maximum == logits.max()
    assert maxima.tolist() == column_maxima(logits).tolist()
    count = leading.leading_tokens(logits, maximum, maxima, groups, ids, distance)
    return ids[:count], distance[:count]


def test_a_row_with_a_nan_has_no_maximum() -> None:
    for size, place in ((1, 0), (3, 2), (5_000, 0), (5_000, 4_999), (5_000, 313)):
        logits = np.zeros(size, np.float32)
        logits[place] = np.nan
        assert np.isnan(leading.fold(logits, np.empty(column_count(size), np.float32)))


@pytest.mark.parametrize("count", [0, 1, 2, 5, 64, 65, 1_000, 2_048])
def test_ranking_sorts_by_logit_and_then_by_id(count: int) -> None:
    rng = np.random.default_rng(count)
    logits = rng.integers(-40, 0, 4_000).astype(np.float32)
    logits[::50] = -np.inf
    ids = rng.permutation(4_000)
    expected = sorted(ids[:count].tolist(), key=lambda token: (-logits[token], token))
    rest = ids[count:].tolist()
    leading.rank(logits, ids, count)
    assert ids.tolist() == expected + rest


def test_bins_hold_what_those_of_the_base_class_hold() -> None:
    rng = np.random.default_rng(6)
    for kind in LOGIT_KINDS:
        logits = random_logits(rng, kind, 5_000)
        maximum = logits.max()
        plain, fast = RowBins(logits.size), CompiledBins(logits.size)
        for inverse in (1e-3, 0.01, 1.0, 1.0 / 0.7, 90.0, 1e3):
            expected = plain.totals(logits, maximum, inverse, 35)
            found = fast.totals(logits, maximum, inverse, 35)
            assert found.masses.tolist() == expected.masses.tolist()
            assert found.counts.tolist() == expected.counts.tolist()


@pytest.mark.parametrize("size", [1, 7, 8, 16, 1_031, 20_480])
def test_counts_are_those_of_the_base_class(size: int) -> None:
    rng = np.random.default_rng(size)
    for count in (1, 3):
        blocks = rng.integers(0, 256, (count, 2 * size), dtype=np.uint8)
        full = np.full((count, size), 255, dtype=np.uint8)
        for each in (blocks, blocks[:, :size], blocks[:, ::2], full):
            assert CompiledCounts(each).sums.tolist() == [sum(row.tobytes()) for row in each]
            assert CompiledCounts(each).ones.tolist() == np.unpackbits(each, axis=1).sum(1).tolist()


def test_the_longest_block_does_not_overflow() -> None:
    size = 2**24 - 8
    blocks = np.full((1, size), 255, dtype=np.uint8)
    assert CompiledCounts(blocks).sums.tolist() == [255 * size]
    assert CompiledCounts(blocks).ones.tolist() == [8 * size]


def test_compiled_masses_do_what_their_source_says() -> None:
    rng = np.random.default_rng(5)
    distance = -rng.exponential(8.0, LANES + 5).astype(np.float32)
    expected = fixed_point_masses(distance, 0.8, 35)
    memory = compiled_masses.mass_memory()
    compiled_masses.fill_exponentials.py_func(distance, 20, 0.8, *memory)
    assert (memory[2][:20] * 2.0**35).round().tolist() == expected[:20].tolist()
    compiled_masses.fill_masses.py_func(distance, 20, 0.8, 2.0**35, *memory)
    assert memory[2][:20].tolist() == expected[:20].tolist()
    result = np.empty(distance.size)
    compiled_masses._all_masses.py_func(distance, 0.8, 2.0**35, result, *memory)
    assert result.tolist() == expected.tolist()


def test_compiled_bins_do_what_their_source_says() -> None:
    rng = np.random.default_rng(7)
    logits = random_logits(rng, "language model", LANES + 5)
    maximum, scale = logits.max(), tuple(bin_scale(0.8))
    expected = RowBins(logits.size).totals(logits, maximum, 0.8, 35)
    distance, bins = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
    totals, counts = np.empty((TABLES, BINS)), np.empty((TABLES, BINS), np.int32)
    masses = compiled_masses.mass_memory()
    compiled_bins.fill_totals.py_func(
        logits, maximum, 0.8, 2.0**35, scale, distance, bins, masses, totals, counts
    )
    assert totals[0].tolist() == expected.masses.tolist()
    assert counts[0].tolist() == expected.counts.tolist()
    repeated = np.array([1.0, 2.0, 1.0, 1.0], dtype=np.float32)
    assert compiled_bins.token_at.py_func(repeated, np.float32(1.0), 1) == 2
    assert compiled_bins.token_at.py_func(repeated, np.float32(3.0), 0) == -1
    compiled_bins._fill_bins.py_func(logits[:9], maximum, *scale, distance, bins)
    assert bins[:9].tolist() == [int(d * scale[1]) for d in distance[:9]]


def test_compiled_counts_do_what_their_source_says() -> None:
    blocks = np.random.default_rng(8).integers(0, 256, (2, 24), dtype=np.uint8)
    found = np.empty((2, 2), dtype=np.intp)
    with np.errstate(over="ignore"):
        compiled_counts._count.py_func(blocks, *found)
    assert found[0].tolist() == blocks.sum(axis=1).tolist()
    assert found[1].tolist() == np.unpackbits(blocks, axis=1).sum(axis=1).tolist()


def test_the_deviation_is_that_of_the_reference() -> None:
    rng = np.random.default_rng(15)
    for kind in LOGIT_KINDS:
        for size in (1, 5, LANES + 1, 20_001):
            logits = random_logits(rng, kind, size)
            found = compiled_statistics.compiled_deviation(logits)
            assert found == logit_deviation(logits)
    logits = np.array([1.5, -np.inf, 0.5, -2.0], dtype=np.float32)
    found = compiled_statistics._distances.py_func(logits, 1.5)
    assert found == compiled_statistics._distances(logits, 1.5) == (3, -4.5, -3.5)
    assert compiled_statistics._squares.py_func(logits, 1.5, -1.5) == 1.5**2 + 0.5**2 + 2.0**2
    assert compiled_statistics._variance.py_func(logits, 1.5) == (6.5 / 3, 3.5)
