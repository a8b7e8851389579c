# SPDX-License-Identifier: Apache-2.0
"""F(psi) against fractions, and its selection against the inverse distribution function."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_tsd import HeadTailLaw, PsiError

LARGEST_U = 1 - 2.0**-53


class Case(NamedTuple):
    ids: list[int]
    log_weights: list[float]
    log_tail: float
    vocab_size: int
    excluded: list[int]

    def law(self) -> HeadTailLaw:
        return HeadTailLaw(*self)

    def has_mass(self) -> bool:
        head = set(self.ids) - set(self.excluded)
        tail = self.vocab_size - len(set(self.ids) | set(self.excluded))
        return bool(head) or (tail > 0 and self.log_tail > -math.inf)

    def order(self) -> list[int]:
        """All tokens that have a weight, in the order of selection."""
        barred = set(self.excluded)
        head = [token for token in self.ids if token not in barred]
        if self.log_tail == -math.inf:
            return head
        apart = barred | set(self.ids)
        return head + [token for token in range(self.vocab_size) if token not in apart]

    def exact(self) -> dict[int, Fraction]:
        """The probability of each token of :meth:`order`."""
        logs = dict(zip(self.ids, self.log_weights, strict=True))
        scores = {token: logs.get(token, self.log_tail) for token in self.order()}
        top = max(scores.values())
        weights = {token: Fraction(math.exp(score - top)) for token, score in scores.items()}
        total = sum(weights.values())
        return {token: weight / total for token, weight in weights.items()}


@st.composite
def cases(draw: st.DrawFn, largest: float = 800.0) -> Case:
    vocab_size = draw(st.integers(1, 24))
    tokens = st.integers(0, vocab_size - 1)
    ids = draw(st.lists(tokens, max_size=vocab_size, unique=True))
    scores = st.floats(-largest, largest)
    weights = draw(st.lists(scores, min_size=len(ids), max_size=len(ids)))
    log_tail = draw(st.one_of(st.just(-math.inf), scores))
    excluded = draw(st.lists(tokens, max_size=vocab_size, unique=True))
    return Case(ids, weights, log_tail, vocab_size, excluded)


@given(cases())
def test_probabilities_are_those_of_the_definition(case: Case) -> None:
    if not case.has_mass():
        with pytest.raises(PsiError, match="no token has any probability"):
            case.law()
        return
    law, exact = case.law(), case.exact()
    dense = [float(exact.get(token, Fraction(0))) for token in range(case.vocab_size)]
    everything = np.arange(case.vocab_size)
    np.testing.assert_allclose(law.probs(), dense, rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(law.probs(), law.probs_of(everything))
    np.testing.assert_array_equal(law.probs(), [law.prob_of(token) for token in everything])
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(law.log_probs_of(everything), np.log(law.probs()))
    assert math.isclose(law.head_probs.sum() + law.tail_mass, 1.0, rel_tol=1e-14)
    np.testing.assert_array_equal(law.cell_probs, [*law.head_probs, law.tail_mass])
    masses = np.ones(case.vocab_size)
    law.subtract_from(masses)
    np.testing.assert_array_equal(masses, 1.0 - law.probs())


@given(cases(largest=8.0))
def test_every_token_is_selected_over_its_share_and_nowhere_else(case: Case) -> None:
    if not case.has_mass():
        return
    law, exact = case.law(), case.exact()
    below = Fraction(0)
    for token in case.order():
        share = exact[token]
        # Rounding moves a step of the distribution function by less than 1e-13.
        inside = [float(below + share * at) for at in (Fraction(1, 10**4), Fraction(1, 2))]
        inside.append(float(below + share * Fraction(9_999, 10_000)))
        assert law.select(np.array(inside)).tolist() == [token] * 3
        assert [law.select_one(u) for u in inside] == [token] * 3
        below += share


@given(cases(), st.lists(st.floats(0, LARGEST_U), max_size=5))
def test_both_selections_agree_and_never_leave_the_support(case: Case, some: list[float]) -> None:
    if not case.has_mass():
        return
    law = case.law()
    steps = np.cumsum([float(law.prob_of(token)) for token in case.order()])
    near = np.concatenate([np.nextafter(steps, 0), steps, np.nextafter(steps, 2)])
    u = np.array([0.0, 2.0**-53, LARGEST_U, *some, *near[near < 1]])
    tokens = law.select(u)
    assert tokens.tolist() == [law.select_one(float(number)) for number in u]
    assert (law.probs_of(tokens) > 0).all()


def test_the_first_and_the_last_token_are_at_the_ends() -> None:
    law = HeadTailLaw([3, 1], [0.0, 0.0], 0.0, vocab_size=6)
    assert law.select_one(0.0) == 3
    assert law.select_one(LARGEST_U) == 5
    without_tail = HeadTailLaw([3, 1, 2], [0.0, 0.0, -900.0], -np.inf, vocab_size=6)
    assert without_tail.select_one(LARGEST_U) == 1


def test_steps_that_float64_holds_are_met_exactly() -> None:
    law = HeadTailLaw([3, 1], [0.0, 0.0], 0.0, vocab_size=8)
    eighths = np.arange(8) / 8
    assert law.select(eighths).tolist() == [3, 1, 0, 2, 4, 5, 6, 7]
    assert law.select(np.nextafter(eighths[1:], 0)).tolist() == [3, 1, 0, 2, 4, 5, 6]


@pytest.mark.parametrize("vocab_size", [151_936, 2**31 - 1])
def test_every_rank_of_a_large_tail_can_be_reached(vocab_size: int) -> None:
    law = HeadTailLaw([5, vocab_size - 1], [0.0, 1.0], -12.0, vocab_size)
    ranks = np.array([0, 4, 5, 6, 77_777, law.tail_count - 1])
    u = 1.0 - law.tail_mass + (ranks + 0.5) * law.tail_prob
    tokens = law.select(u)
    assert tokens.tolist() == [0, 4, 6, 7, 77_778, vocab_size - 2]
    np.testing.assert_array_equal(law.tail_ranks(tokens), ranks)
    np.testing.assert_array_equal(law.tail_tokens(ranks), tokens)


@given(cases(largest=8.0), st.data())
def test_other_cells_keep_head_and_tail(case: Case, data: st.DataObject) -> None:
    if not case.has_mass():
        return
    law = case.law()
    size = law.ids.size + 1
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=size, max_size=size))
    cells = np.array(weights) / sum(weights)
    if not law.tail_count:
        if size == 1:
            return
        cells = np.append(cells[:-1] / cells[:-1].sum(), 0.0)
    other = law.with_cells(cells)
    np.testing.assert_allclose(other.cell_probs, cells, rtol=1e-12)
    assert other.ids.tolist() == law.ids.tolist()
    assert (other.probs()[case.excluded] == 0).all()


def test_a_cell_of_probability_zero_stays_all_but_impossible() -> None:
    law = HeadTailLaw([3, 1], [0.0, 0.0], 0.0, vocab_size=8)
    probs = law.with_cells(np.array([0.0, 1.0, 0.0])).probs()
    assert probs.tolist() == [0, 1, 0, 5e-324, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [1, 1]}, "the id 1 more than once"),
        ({"ids": [1, 8]}, r"the id 8, outside \[0, 8\)"),
        ({"ids": [-1, 2]}, "the id -1"),
        ({"ids": [1.0, 2.0]}, "list of integers, got float64"),
        ({"log_weights": [0.0]}, r"as many scores, got the shape \(1,\)"),
        ({"log_weights": [0.0, np.nan]}, "a score is nan"),
        ({"log_weights": [0.0, np.inf]}, "a score is inf"),
        ({"log_tail": np.nan}, "the logarithm nan"),
        ({"log_tail": np.inf}, "the logarithm inf"),
        ({"excluded": [2, 2]}, "the excluded ids hold the id 2 more than once"),
        ({"excluded": [True, False]}, "list of integers, got bool"),
        ({"excluded": range(8)}, "no token has any probability"),
        ({"excluded": [1, 2], "log_tail": -np.inf}, "no token has any probability"),
    ],
)
def test_what_is_no_law_is_refused(change: dict[str, object], message: str) -> None:
    arguments = {"ids": [1, 2], "log_weights": [0.0, 0.0], "log_tail": -1.0, "vocab_size": 8}
    with pytest.raises(PsiError, match=message):
        HeadTailLaw(**{**arguments, **change})
