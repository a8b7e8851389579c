# SPDX-License-Identifier: Apache-2.0
"""Rows whose tokens crowd in a few bins: the right tokens, in a bounded number of passes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from qr_sampler import FastSelector, ReferenceSelector, Rows, SamplingParameters
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.selection.fast.bins import BinnedRow, RowBins
from qr_sampler.selection.fast.descent import Goal, Landing, land
from qr_sampler.selection.fast.energies import Edge, RowEnergies, typical_reach
from qr_sampler.selection.filters import ENERGY_STEPS, typical_range
from qr_sampler.selection.masses import ceil_product
from qr_sampler.testing.crowded_rows import CROWDED_KINDS, crowded_row
from qr_sampler.testing.selection_cases import LOGIT_KINDS, random_logits, random_parameters

FILTERS = [
    {},
    {"top_p": 0.7},
    {"top_k": 700},
    {"min_p": 0.999},
    {"top_n_sigma": 0.8},
    {"typical_p": 0.6},
    {"typical_p": 0.9, "top_k": 900},
    {"typical_p": 0.3, "top_p": 0.8, "truncate_first": True},
]


def assert_same_tokens(
    logits: NDArray[np.float32], parameters: SamplingParameters, temperature: float
) -> None:
    batch, rows, tempered = logits[np.newaxis], Rows([parameters]), np.array([temperature])
    selectors = FastSelector(), ReferenceSelector()
    plans = [each.prepare(each.measure(batch, rows, tempered), tempered) for each in selectors]
    for u in (U_MIN, 0.2, 0.5, 0.77, 1.0 - 1e-9, U_MAX):
        found, right = (
            each.pick(plan, np.array([u])) for each, plan in zip(selectors, plans, strict=True)
        )
        assert found.token_ids.tolist() == right.token_ids.tolist()
        assert found.rank.tolist() == right.rank.tolist()
        assert found.candidates.tolist() == right.candidates.tolist()
        np.testing.assert_allclose(found.probability, right.probability, rtol=1e-5)


@pytest.mark.parametrize("kind", CROWDED_KINDS)
def test_crowded_rows_are_selected_from_as_the_reference_does(kind: str) -> None:
    rng = np.random.default_rng([CROWDED_KINDS.index(kind), 3])
    for filters in FILTERS:
        for temperature in (1.0, 0.6, 40.0):
            row = crowded_row(rng, kind, 6_000)
            assert_same_tokens(row, SamplingParameters.model_validate(filters), temperature)


@pytest.mark.parametrize("few", [0, 7])
@pytest.mark.parametrize("kind", LOGIT_KINDS)
def test_sections_of_any_size_may_be_descended_into(
    kind: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if hardly a bin had few tokens."""
    monkeypatch.setattr(RowBins, "most_sorted", few)
    rng = np.random.default_rng([LOGIT_KINDS.index(kind), few])
    for vocab_size in (1, 2, 40, 300, 2_000, 2_000):
        parameters = random_parameters(rng, vocab_size)
        assert_same_tokens(random_logits(rng, kind, vocab_size), parameters, 0.8)


class Scale:
    """Weighs logits, and notes how many."""

    def __init__(self, row: BinnedRow) -> None:
        self.row = row
        self.weighed = 0

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        self.weighed += logits.size
        return self.row.masses(logits)


@pytest.mark.parametrize("kind", [*CROWDED_KINDS, *LOGIT_KINDS])
def test_a_descent_looks_at_no_token_often(kind: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(5):
        make = crowded_row if kind in CROWDED_KINDS else random_logits
        logits = make(rng, kind, 5_000)
        row = BinnedRow(logits, logits.max(), 1.0, 35)
        ordered = np.sort(logits)[::-1]
        running = np.cumsum(row.masses(ordered)).astype(np.int64)
        for fraction in (1e-12, 0.3, 0.8, 1.0):
            by_mass = Goal(max(1, int(fraction * running[-1])), counts=False)
            by_count = Goal(max(1, int(fraction * logits.size)), counts=True)
            place = int(np.searchsorted(running, by_mass.amount))
            for goal, rank in ((by_mass, place), (by_count, by_count.amount - 1)):
                scale = Scale(row)
                found = land(logits, goal, scale)
                above = int(np.count_nonzero(logits > ordered[rank]))
                mass = int(running[above - 1]) if above else 0
                assert found == Landing(ordered[rank], above, mass)
                # Half of what is left in each round, and the pivot.
                assert scale.weighed <= logits.size + 2 * logits.size.bit_length()


@pytest.mark.parametrize("kind", [*CROWDED_KINDS, *LOGIT_KINDS])
def test_the_reach_of_typical_p_is_that_of_its_definition(kind: str) -> None:
    rng = np.random.default_rng(11)
    make = crowded_row if kind in CROWDED_KINDS else random_logits
    for inverse, share in itertools.product((1.0, 0.05, 30.0), (1e-12, 0.3, 0.97)):
        logits = make(rng, kind, 1_500)
        row = BinnedRow(logits, logits.max(), inverse, 35)
        order = np.argsort(-logits, kind="stable")
        for kept in (logits.size, int(rng.integers(1, logits.size))):
            values = logits[order[:kept]]
            masses = row.masses(values)
            exponents = row.distances(values).astype(np.float64) * inverse
            first, stop = typical_range(exponents, masses, share)
            edge = Edge(values[-1], int(np.count_nonzero(values == values[-1])))
            goal = ceil_product(share, int(masses.sum()))
            reach = typical_reach(RowEnergies(1_500), row, edge, goal)
            running = np.concatenate([[0.0], np.cumsum(masses)]).astype(np.int64)
            assert (running[reach.start.rank], running[reach.stop.rank]) == (
                reach.start.lowest,
                reach.stop.lowest,
            )
            place = int(np.searchsorted(running[1:], reach.goal, side="left"))
            ends = (place, reach.stop.rank) if reach.below else (reach.start.rank, place + 1)
            assert ends == (first, stop)


def test_energies_are_whole_steps_of_the_exponent() -> None:
    row = BinnedRow(np.array([0.0, -1.0, -99.0], dtype=np.float32), np.float32(0.0), 1.0, 35)
    energies = RowEnergies(3)
    mean = energies.mean(row, None)
    totals = energies.totals(0, 0, int(ENERGY_STEPS) - 1)
    assert 0 < mean < ENERGY_STEPS
    assert np.flatnonzero(totals.counts.reshape(-1)).tolist() == [totals.counts.shape[1] + 1]
