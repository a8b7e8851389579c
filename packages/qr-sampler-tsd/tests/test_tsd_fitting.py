# SPDX-License-Identifier: Apache-2.0
"""Fitted payloads against the distribution that the request really has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_tsd import PsiRelative, PsiTopK, craft_psi, craft_relative_psi
from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.fitting import RequestShape, fit
from qr_sampler_tsd.train import overlap_mass

V, K = 2000, 64
LOGITS = np.random.default_rng(1).normal(0.0, 2.5, V)


def softmax(logits: FloatArray) -> FloatArray:
    weights = np.exp(logits - logits.max())
    law: FloatArray = weights / weights.sum()
    return law


def target(shape: RequestShape, logits: FloatArray = LOGITS) -> FloatArray:
    """The distribution of a request, written down once more: masks, temperature, filters."""
    masked = logits.copy()
    if shape.allowed is not None:
        masked[np.setdiff1d(np.arange(masked.size), shape.allowed)] = -np.inf
    if shape.barred is not None:
        masked[shape.barred] = -np.inf
    temperature = 1.0 if shape.temperature is None else max(shape.temperature, 1e-3)
    law = softmax(masked / temperature)
    judged = softmax(masked) if shape.truncate_first else law
    kept = np.ones(law.size, dtype=bool)
    order = np.argsort(-judged, kind="stable")
    if shape.top_k:
        kept[order[shape.top_k :]] = False
    kept &= judged >= shape.min_p * judged.max()
    rest = np.where(kept, judged, 0.0)[order]
    reached = np.cumsum(rest / rest.sum())
    kept[order[int(np.searchsorted(reached, shape.top_p - 1e-12)) + 1 :]] = False
    law = np.where(kept, law, 0.0)
    return law / law.sum()


SHAPES: dict[str, dict[str, Any]] = {
    "colder": {"temperature": 0.3},
    "cold": {"temperature": 0.7},
    "the same": {"temperature": 1.0},
    "warm": {"temperature": 1.4},
    "greedy": {"temperature": 0.0},
    "top-k": {"temperature": 0.7, "top_k": 20},
    "top-k of 1": {"temperature": 0.7, "top_k": 1},
    "top-k beyond the head": {"temperature": 0.7, "top_k": 100},
    "top-p": {"temperature": 0.7, "top_p": 0.8},
    "min-p": {"temperature": 0.7, "min_p": 0.05},
    "all filters": {"temperature": 0.9, "top_k": 40, "min_p": 0.01, "top_p": 0.9},
    "filters first": {"temperature": 0.5, "top_k": 40, "top_p": 0.6, "truncate_first": True},
    "half of the tokens": {"temperature": 0.7, "allowed": np.arange(0, V, 2)},
    "few tokens": {"temperature": 0.7, "allowed": np.argsort(-LOGITS)[[0, 3, 9, 500]]},
    "barred": {"temperature": 0.7, "barred": np.argsort(-LOGITS)[[0, 2, 70]]},
    "barred and top-p": {"temperature": 0.7, "top_p": 0.8, "barred": np.argsort(-LOGITS)[:2]},
}


LEAVES_THE_TAIL_OUT = {
    "top-k beyond the head",
    "top-p",
    "all filters",
    "half of the tokens",
    "barred and top-p",
    "filters first",
}
"""Shapes whose distribution has tokens that the fitted head does not name."""


@pytest.mark.parametrize("craft", [craft_psi, craft_relative_psi])
@pytest.mark.parametrize("name", SHAPES)
def test_a_fitted_payload_is_nearly_that_of_the_request(
    name: str, craft: Callable[[FloatArray, int], PsiTopK | PsiRelative]
) -> None:
    shape = RequestShape(**SHAPES[name])
    p = target(shape)
    psi = craft(softmax(LOGITS), K)
    fitted = fit(psi, shape, 1.0)
    assert fitted is not None
    # What the best payload of the same kind reaches; uniform tails differ at other temperatures.
    best = overlap_mass(p, craft(p, K).law())
    found = overlap_mass(p, fitted.law())
    # Where no tail is left there is little to lose but the rounding of scores.
    assert found > best - (0.08 if fitted.law().tail_mass or name in LEAVES_THE_TAIL_OUT else 0.01)
    assert found >= overlap_mass(p, psi.law()) - 1e-3
    # Nothing is proposed that cannot come.
    if shape.allowed is not None or shape.barred is not None:
        masked = RequestShape(allowed=shape.allowed, barred=shape.barred)
        assert fitted.law().probs()[target(masked) == 0].sum() == 0


def test_the_temperature_is_most_of_it() -> None:
    psi = craft_relative_psi(softmax(LOGITS), K)
    for temperature in (0.3, 0.7):
        p = target(RequestShape(temperature=temperature))
        fitted = fit(psi, RequestShape(temperature=temperature), 1.0)
        assert fitted is not None
        assert overlap_mass(p, fitted.law()) > overlap_mass(p, psi.law()) + 0.1


def test_what_is_not_known_is_left_alone() -> None:
    psi = craft_relative_psi(softmax(LOGITS), K)
    assert fit(psi, RequestShape(temperature=0.5), None) is psi
    assert fit(psi, RequestShape(), 1.0) is psi
    assert fit(psi, RequestShape(temperature=0.5), 0.5) is psi


def test_where_the_head_has_nothing_allowed_all_are_equal() -> None:
    psi = craft_relative_psi(softmax(LOGITS), K)
    shape = RequestShape(temperature=0.7, allowed=np.argsort(LOGITS)[:3])
    fitted = fit(psi, shape, 1.0)
    assert fitted is not None
    assert sorted(fitted.ids.tolist()) == sorted(np.argsort(LOGITS)[:3].tolist())
    assert fitted.law().head_probs == pytest.approx([1 / 3] * 3)


def test_nothing_left_is_nothing_to_draft() -> None:
    psi = craft_relative_psi([0.5, 0.5, 0.0], 2)
    assert fit(psi, RequestShape(barred=np.array([0, 1])), 1.0) is None
    assert fit(psi, RequestShape(allowed=np.array([7])), 1.0) is None
    assert fit(psi, RequestShape(barred=np.array([0, 1]), top_k=1), 1.0) is None
    tailed = craft_relative_psi([0.5, 0.3, 0.2], 2)
    left = fit(tailed, RequestShape(barred=np.array([0, 1])), 1.0)
    assert left is not None
    assert left.law().probs().tolist() == [0, 0, 1]


@given(
    temperature=st.none() | st.floats(0, 1000),
    trained_at=st.none() | st.floats(1e-3, 1000),
    top_k=st.integers(0, 12),
    min_p=st.floats(0, 1),
    top_p=st.floats(1e-6, 1),
    first=st.booleans(),
    allowed=st.none() | st.lists(st.integers(0, 9), max_size=10),
    barred=st.none() | st.lists(st.integers(0, 9), max_size=3, unique=True),
    masses=st.lists(st.floats(0, 1), min_size=10, max_size=10).filter(any),
    k=st.integers(1, 10),
    version=st.sampled_from([craft_psi, craft_relative_psi]),
)
def test_whatever_a_request_asks_for_leaves_a_payload_or_nothing(
    temperature: float | None,
    trained_at: float | None,
    top_k: int,
    min_p: float,
    top_p: float,
    first: bool,
    allowed: list[int] | None,
    barred: list[int] | None,
    masses: list[float],
    k: int,
    version: Any,
) -> None:
    shape = RequestShape(
        temperature=temperature,
        top_k=top_k,
        min_p=min_p,
        top_p=top_p,
        truncate_first=first,
        allowed=None if allowed is None else np.array(allowed, dtype=np.int64),
        barred=None if barred is None else np.array(barred, dtype=np.int64),
    )
    fitted = fit(version(masses, k), shape, trained_at)
    if fitted is None:
        return
    probs = fitted.law().probs()
    assert probs.sum() == pytest.approx(1)
    possible = set(range(10)) if allowed is None else set(allowed)
    assert set(np.flatnonzero(probs).tolist()) <= possible - set(barred or ())
    if temperature == 0:
        assert np.count_nonzero(probs) == 1 or not fitted.ids.size or probs.max() < 1


@pytest.mark.parametrize(
    "values",
    [{"temperature": -1.0}, {"temperature": np.nan}, {"top_k": -1}, {"min_p": 2.0}, {"top_p": 0.0}],
)
def test_shapes_have_values_in_range(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|out of range"):
        RequestShape(**values)


@pytest.mark.parametrize("temperature", [1e-6, 0.01, 1.0, 1e4, 1e6])
@pytest.mark.parametrize("trained_at", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("weight", [1e-30, 1.0, 6e4])
def test_tails_heavier_than_any_head_are_fitted_too(
    temperature: float, trained_at: float, weight: float
) -> None:
    """Proposers of other projects may say anything that a payload can hold."""
    first = PsiTopK(
        ids=[1, 0], scores_q8=[127, -128], scale=1e3, zero_point=-128, tau=1e-3,
        epsilon=weight, vocab_size=9,
    )  # fmt: skip
    second = PsiRelative(
        ids=[1, 0], scores_q8=[127, -128], scale=1e30, tau=6e4,
        log_tail=1e30 * np.log(weight), vocab_size=9,
    )  # fmt: skip
    for psi in (first, second):
        for options in ({}, {"top_p": 0.5}, {"min_p": 0.5}, {"truncate_first": True, "top_k": 1}):
            shape = RequestShape(temperature=temperature, **options)  # type: ignore[arg-type]
            fitted = fit(psi, shape, trained_at)
            assert fitted is None or fitted.law().probs().sum() == pytest.approx(1)
