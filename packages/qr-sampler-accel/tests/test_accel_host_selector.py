# SPDX-License-Identifier: Apache-2.0
"""The selector of the host against the reference, compiled and as its source says."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qr_sampler import ReferenceSelector, Rows, SamplingParameters, SelectionResult
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.selection.fast.bins import FEW
from qr_sampler.selection.masses import ceil_product
from qr_sampler.testing.selection_cases import (
    LOGIT_KINDS,
    random_logits,
    random_parameters,
    random_temperatures,
)

pytest.importorskip("numba", reason="needs the extra numba")

from qr_sampler_accel.host import few, from_bins, from_head, leading, row_loops, selector
from qr_sampler_accel.host.arithmetic import masses, moments, products
from qr_sampler_accel.host.bins import bins, descent, pivots
from qr_sampler_accel.host.selector import CompiledSelector

LOOPS = (
    bins,
    descent,
    few,
    from_bins,
    from_head,
    leading,
    masses,
    moments,
    pivots,
    products,
    row_loops,
    selector,
)
SIZES = (1, 2, 3, 130, FEW - 1, FEW, FEW + 1, 5_000, 20_000)
U: tuple[float, ...] = (U_MIN, 0.3, 0.5, 0.9, 0.999_99, 1.0 - 1e-10, U_MAX)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python runs the loops instead of the compiler."""
    for module in LOOPS:
        interpret(monkeypatch, module)


def interpret(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    for name, value in list(vars(module).items()):
        if hasattr(value, "py_func"):
            monkeypatch.setattr(module, name, value.py_func)


def selected(
    one: Any,
    logits: NDArray[np.float32],
    rows: Rows,
    temperature: NDArray[np.float64],
    *,
    known: bool,
) -> tuple[Any, list[SelectionResult]]:
    """What a selector has measured, and what it selects for each of several u."""
    unknown = np.full(len(rows), np.nan)
    measured = one.measure(logits, rows, temperature if known else unknown)
    plan = one.prepare(measured, temperature[measured.lines])
    return measured, [one.pick(plan, np.full(measured.lines.size, u)) for u in U]


def assert_same(
    logits: NDArray[np.float32], rows: Rows, temperature: NDArray[np.float64], *, known: bool
) -> None:
    """Both selectors select the same tokens."""
    compiled, reference = (
        selected(one, logits, rows, temperature, known=known)
        for one in (CompiledSelector(), ReferenceSelector())
    )
    assert compiled[0].lines.tolist() == reference[0].lines.tolist()
    if not known:
        for name in ("entropy_nats", "varentropy_nats2"):
            rounded = [np.rint(getattr(one[0], name) * 1024.0) for one in (compiled, reference)]
            assert rounded[0].tolist() == rounded[1].tolist()
    for found, right in zip(compiled[1], reference[1], strict=True):
        assert found.token_ids.tolist() == right.token_ids.tolist()
        assert found.rank.tolist() == right.rank.tolist()
        assert found.candidates.tolist() == right.candidates.tolist()
        assert found.probability == pytest.approx(right.probability, rel=1e-5)


def batch_of(rng: np.random.Generator, kind: str, size: int, count: int) -> NDArray[np.float32]:
    return np.stack([random_logits(rng, kind, size) for _ in range(count)])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", LOGIT_KINDS)
def test_selects_what_the_reference_selects(kind: str, known: bool) -> None:
    rng = np.random.default_rng([LOGIT_KINDS.index(kind), known])
    for size in SIZES:
        logits = batch_of(rng, kind, size, 6)
        rows = Rows([random_parameters(rng, size) for _ in range(6)])
        assert_same(logits, rows, random_temperatures(rng, 6), known=known)


@pytest.mark.parametrize("size", [40, FEW + 100])
def test_the_loops_do_what_their_source_says(source: None, size: int) -> None:
    """Python selects the same tokens from the same source."""
    rng = np.random.default_rng(size)
    wide = {"temperature_strategy": "fixed"}
    filters: list[dict[str, Any]] = [
        wide,
        {"top_k": 20},
        {"top_p": 0.7},
        {"min_p": 0.05, "top_n_sigma": 1.5},
        {"top_k": 7, "top_p": 0.9, "truncate_first": True},
        {"top_p": 0.99, "min_p": 1e-4},
        {"top_n_sigma": 40.0, "top_k": size - 1, "truncate_first": True},
        {"top_k": size + 5, "typical_p": 0.5},
        {"top_p": 0.9, "truncate_first": True},
        {"top_p": 0.9, "truncate_first": True},
    ]
    rows = Rows([SamplingParameters.model_validate(each) for each in filters])
    with np.errstate(over="ignore"):
        for scale in (0.3, 4.0):
            logits = rng.normal(0.0, scale, (len(rows), size)).astype(np.float32)
            logits[:, :3] = -np.inf
            temperature = np.array([1.0, 0.7] * (len(rows) // 2))
            assert_same(logits, rows, temperature, known=False)


@pytest.mark.parametrize("size", [300, 3_000])
def test_undecidable_rows_are_left_out(size: int) -> None:
    logits = np.zeros((5, size), dtype=np.float32)
    logits[0] = -np.inf
    logits[2, 7] = np.nan
    logits[3, 8] = np.inf
    assert_same(logits, Rows([SamplingParameters(top_k=9)] * 5), np.ones(5), known=True)


@pytest.mark.parametrize("size", [300, 3_000])
@pytest.mark.parametrize("at_first", [np.nan, 1.0])
def test_a_caller_may_fill_temperatures_in_place(size: int, at_first: float) -> None:
    logits = batch_of(np.random.default_rng(6), "normal", size, 2)
    rows, temperature = Rows([SamplingParameters()] * 2), np.full(2, at_first)
    compiled, reference = CompiledSelector(), ReferenceSelector()
    measured = compiled.measure(logits, rows, temperature)
    temperature[:] = 0.2
    plan = compiled.prepare(measured, temperature)
    expected = reference.prepare(reference.measure(logits, rows, temperature), temperature)
    for u in U:
        found, right = compiled.pick(plan, np.full(2, u)), reference.pick(expected, np.full(2, u))
        assert found.token_ids.tolist() == right.token_ids.tolist()
        assert found.probability == pytest.approx(right.probability, rel=1e-5)


def test_nobody_overwrites_an_earlier_plan() -> None:
    """Two measurements of one selector do not share what they hold."""
    rng = np.random.default_rng(3)
    rows, ones, half = Rows([SamplingParameters()] * 2), np.ones(2), np.full(2, 0.5)
    one = CompiledSelector()
    batches = [batch_of(rng, "language model", 5_000, 2) for _ in range(2)]
    plans = [one.prepare(one.measure(each, rows, ones), ones) for each in batches]
    apart = []
    for each in batches:
        other = CompiledSelector()
        plan = other.prepare(other.measure(each, rows, ones), ones)
        apart.append(other.pick(plan, half).token_ids.tolist())
    assert [one.pick(plan, half).token_ids.tolist() for plan in plans] == apart


def test_rows_that_do_not_lie_side_by_side_are_taken_together() -> None:
    logits = np.asfortranarray(batch_of(np.random.default_rng(5), "language model", 2_500, 3))
    assert_same(logits, Rows([SamplingParameters()] * 3), np.ones(3), known=True)


@given(st.floats(0.0, 1.0), st.integers(0, 2**53))
def test_products_are_rounded_up_as_whole_numbers_are(factor: float, total: int) -> None:
    assert products.ceil_product(factor, total) == ceil_product(factor, total)


@given(st.integers(1, 2**53), st.integers(1, 2**53))
def test_products_of_ratios_are_rounded_up(part: int, whole: int) -> None:
    factor = min(part, whole) / whole
    for each in (factor, math.nextafter(factor, 0.0), min(math.nextafter(factor, 1.0), 1.0)):
        assert products.ceil_product(each, whole) == ceil_product(each, whole)
        assert products.ceil_product.py_func(each, whole) == ceil_product(each, whole)
