# SPDX-License-Identifier: Apache-2.0
"""Laws without a sort are those of the sorted reference, to the last bit."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qr_sampler import FastSelector, ReferenceSelector, Rows, SamplingParameters
from qr_sampler.sampling.planner import StepPlanner
from qr_sampler.selection import Residual, RowLaws, SparseLaw
from qr_sampler.selection.fast.row_laws import PIECE
from qr_sampler.selection.laws import RESIDUAL_UNIT, goal_above, residual_masses
from qr_sampler.testing.crowded_rows import CROWDED_KINDS, crowded_row
from qr_sampler.testing.law_contract import check_same_laws
from qr_sampler.testing.selection_cases import (
    LOGIT_KINDS,
    random_logits,
    random_parameters,
    random_temperatures,
)


def laws_of(
    selector: Any, logits: NDArray[np.float32], rows: Rows, temperature: NDArray[np.float64]
) -> RowLaws:
    measured = selector.measure(logits, rows, temperature)
    laws: RowLaws = selector.laws(selector.prepare(measured, temperature[measured.lines]))
    return laws


def check(
    logits: NDArray[np.float32], rows: Rows, temperature: NDArray[np.float64], seed: Any
) -> None:
    pair = [laws_of(each, logits, rows, temperature) for each in (FastSelector(), REFERENCE)]
    check_same_laws(pair[0], pair[1], np.random.default_rng(seed))


REFERENCE = ReferenceSelector()


@pytest.mark.parametrize("kind", LOGIT_KINDS)
def test_laws_are_those_of_the_reference(kind: str) -> None:
    rng = np.random.default_rng([LOGIT_KINDS.index(kind), 11])
    for vocab_size in (1, 2, 3, 40, 300, 2_000, 9_000):
        parameters = [random_parameters(rng, vocab_size) for _ in range(3)]
        logits = np.stack([random_logits(rng, kind, vocab_size) for _ in parameters])
        check(logits, Rows(parameters), random_temperatures(rng, 3), vocab_size)


@pytest.mark.parametrize("kind", CROWDED_KINDS)
def test_laws_of_crowded_rows_are_those_of_the_reference(kind: str) -> None:
    rng = np.random.default_rng([CROWDED_KINDS.index(kind), 12])
    parameters = [random_parameters(rng, 6_000) for _ in range(4)]
    logits = np.stack([crowded_row(rng, kind, 6_000) for _ in parameters])
    check(logits, Rows(parameters), random_temperatures(rng, 4), 1)


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"top_k": 50},
        {"top_p": 0.9},
        {"min_p": 0.02, "top_p": 0.99},
        {"typical_p": 0.9},
        {"top_n_sigma": 1.5},
    ],
    ids=str,
)
def test_laws_at_the_size_of_a_language_model(filters: dict[str, Any]) -> None:
    vocab_size = 151_936
    logits = random_logits(np.random.default_rng(3), "language model", vocab_size)[np.newaxis]
    check(logits, Rows([SamplingParameters.model_validate(filters)]), np.array([0.7]), 2)


finite = st.floats(-80.0, 80.0, width=32)
some = st.sampled_from([0.0, -0.0, 1.0, -1.0, -math.inf])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_laws_of_any_rows_are_those_of_the_reference(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 24))
    row = st.lists(st.one_of(some, finite), min_size=size, max_size=size)
    logits = np.array(data.draw(st.lists(row, min_size=1, max_size=3)), dtype=np.float32)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    parameters = [random_parameters(rng, size) for _ in logits]
    check(logits, Rows(parameters), random_temperatures(rng, len(logits)), 5)


@pytest.mark.parametrize("strategy", ["fixed", "edt", "edt_paper", "dynatemp"])
def test_temperatures_of_any_strategy_and_rows_without_a_law(strategy: str) -> None:
    rng = np.random.default_rng(9)
    logits = np.stack([random_logits(rng, "language model", 3_000) for _ in range(5)])
    logits[1], logits[3, 7] = -np.inf, np.nan
    parameters = SamplingParameters.model_validate({"temperature_strategy": strategy, "top_p": 0.8})
    rows = Rows([parameters] * 5, np.full(5, 2.0), [-1, 0, 1, 2, 3])
    laws = []
    for selector in (FastSelector(), ReferenceSelector()):
        plan = StepPlanner(selector).prepare(logits, rows)
        assert plan.lines.tolist() == [0, 2, 4]
        laws.append(selector.laws(plan.selection))
    check_same_laws(laws[0], laws[1], rng)


def test_a_law_is_the_quotient_of_masses() -> None:
    """Against rational numbers: two tokens of equal logit, one 10 nats below, one masked."""
    logits = np.array([[5.0, -5.0, 5.0, -math.inf]], dtype=np.float32)
    laws = laws_of(FastSelector(), logits, Rows([SamplingParameters()]), np.ones(1))
    small = round(math.exp(-10.0) * 2**35)
    total = 2 * 2**35 + small
    expected = [float(Fraction(mass, total)) for mass in (2**35, small, 2**35, 0)]
    assert laws.dense(0).tolist() == expected
    assert laws.ranks([0, 0, 0], [0, 2, 1]).tolist() == [0, 1, 2]


def test_residuals_are_the_difference_of_two_laws() -> None:
    logits = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], dtype=np.float32))
    laws = laws_of(FastSelector(), logits, Rows([SamplingParameters()]), np.ones(1))
    q = SparseLaw(np.array([1, 2]), np.array([0.5, 0.1]), 0.2)
    # What is left: 0.2, nothing, 0.1, nothing.
    (left,) = laws.remainders([Residual(0, 1.0, q)])
    assert left == pytest.approx(0.3, rel=1e-6)
    u = np.array([0.0, 0.66, 0.67, 1.0 - 2.0**-53])
    assert laws.select([Residual(0, 1.0, q)] * 4, u).tolist() == [0, 0, 2, 2]
    # Nothing is left of half of p, so that tokens come from p itself.
    nothing = SparseLaw(np.array([0]), np.array([0.4]), 0.2)
    assert laws.remainders([Residual(0, 0.5, nothing)]).tolist() == [0.0]
    assert laws.select([Residual(0, 0.5, nothing)] * 2, np.array([0.35, 0.45])).tolist() == [0, 1]


@settings(max_examples=400)
@given(st.integers(0, 2**53 - 1), st.integers(1, 2**53))
def test_the_goal_is_the_least_whole_number_above(numerator: int, total: int) -> None:
    product = Fraction(numerator, 2**53) * total
    assert goal_above(numerator / 2**53, total) == math.floor(product) + 1


def test_residual_masses_are_rounded_and_never_negative() -> None:
    p, q = np.array([0.5, 0.25, 2.0**-53, 3 * 2.0**-53]), np.array([0.25, 0.5, 0.0, 0.0])
    masses = residual_masses(p, 1.0, q)
    assert masses.tolist() == [RESIDUAL_UNIT / 4, 0.0, 0.0, 2.0]
    assert residual_masses(p, 0.5, 0.125).tolist() == [RESIDUAL_UNIT / 8, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("closeness", [0.5, 1e-3, 1e-12])
def test_rounded_residuals_bend_a_text_by_no_more_than_is_said(closeness: float) -> None:
    """In rational numbers: a draft of q that is kept with min(1, p / q), else a residual token."""
    rng = np.random.default_rng(17)
    size = 400
    p = rng.dirichlet(np.full(size, 0.3))
    near = p * np.exp(rng.normal(0.0, closeness, size))
    q = near / near.sum()
    target = [*map(Fraction, p.tolist())]
    kept = [*map(min, zip(target, map(Fraction, q.tolist()), strict=True))]
    masses = [int(mass) for mass in residual_masses(p, 1.0, q)]
    lost = 1 - sum(kept)
    law = [own + lost * Fraction(mass, sum(masses)) for own, mass in zip(kept, masses, strict=True)]
    bent = sum(abs(one - other) for one, other in zip(law, target, strict=True)) / 2
    # The vectors of float64 themselves do not sum to 1 by more than this.
    slack = abs(1 - sum(target)) + Fraction(size, 2**53)
    assert 0 < bent <= slack
    uncorrected = [own + lost * other for own, other in zip(kept, target, strict=True)]
    assert sum(abs(a - b) for a, b in zip(uncorrected, target, strict=True)) / 2 > slack


def test_long_rows_are_worked_on_in_pieces() -> None:
    """A residual whose tokens are in different pieces of the row."""
    logits = np.full((1, 3 * PIECE + 5), -20.0, dtype=np.float32)
    places = np.array([0, PIECE - 1, PIECE, 2 * PIECE + 9, 3 * PIECE + 4])
    logits[0, places] = 0.0
    laws = laws_of(FastSelector(), logits, Rows([SamplingParameters()]), np.ones(1))
    q = SparseLaw(places[1:4], np.full(3, 0.25), 0.25 / (logits.size - 3))
    tokens = laws.select([Residual(0, 1.0, q)] * 2, np.array([0.25, 0.75]))
    assert tokens.tolist() == [places[0], places[4]]
