# SPDX-License-Identifier: Apache-2.0
"""Truncation against the usual definitions: filters one after the other on renormalised softmax.

The comparison is in float64 and leaves out cases where a threshold falls within rounding of a
probability; the exact behaviour there is the business of the oracle tests.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from qr_sampler import (
    FastSelector,
    ReferenceSelector,
    Rows,
    SamplingParameters,
    SelectionResult,
    Selector,
)

MARGIN = 1e-4
"""Relative distance to a threshold, below which rounding may decide otherwise. typical-p rounds
exponents to 2**-14."""

AnySelector = Selector[Any, Any]
SELECTORS: list[AnySelector] = [ReferenceSelector(), FastSelector()]
both = pytest.mark.parametrize("selector", SELECTORS, ids=["ref", "fast"])


def pick(
    selector: AnySelector,
    logits: NDArray[np.float32],
    temperature: float,
    parameters: SamplingParameters,
    u: float,
) -> SelectionResult:
    temperatures = np.array([temperature])
    measurement = selector.measure(logits[np.newaxis], Rows([parameters]), temperatures)
    return selector.pick(selector.prepare(measurement, temperatures), np.array([u]))


FILTERS = {"top_n_sigma": 0.0, "top_k": 0, "min_p": 0.0, "top_p": 1.0, "typical_p": 1.0}
"""Every filter and the value that switches it off."""


class TooCloseError(Exception):
    """A threshold lies within rounding of a value."""


def check_distance(values: NDArray[np.float64], threshold: float) -> None:
    if np.any(np.abs(values - threshold) <= MARGIN * max(abs(threshold), 1e-9)):
        raise TooCloseError


def survivors(
    logits: NDArray[np.float64], temperature: float, parameters: SamplingParameters
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Returns which tokens the filters keep, and the distribution after them."""
    tempered = softmax(logits / temperature)
    probabilities = softmax(logits) if parameters.truncate_first else tempered
    keep = np.ones(logits.size, dtype=bool)
    if parameters.top_n_sigma > 0.0:
        finite = logits[np.isfinite(logits)]
        threshold = finite.max() - parameters.top_n_sigma * finite.std()
        check_distance(finite - finite.max(), threshold - finite.max())
        keep &= logits >= threshold
    if 0 < parameters.top_k < logits.size:
        kth = np.sort(logits)[-parameters.top_k]
        if (logits == kth).sum() > 1:
            raise TooCloseError
        keep &= logits >= kth
    if parameters.min_p > 0.0:
        threshold = parameters.min_p * probabilities.max()
        check_distance(probabilities[np.arange(logits.size) != probabilities.argmax()], threshold)
        keep &= probabilities >= threshold
    if parameters.top_p < 1.0:
        renormalised = np.where(keep, probabilities, 0.0) / probabilities[keep].sum()
        order = np.argsort(-renormalised, kind="stable")
        running = np.cumsum(renormalised[order])
        check_distance(running, parameters.top_p)
        needed = int(np.searchsorted(running, parameters.top_p)) + 1
        keep[order[needed:]] = False
    if parameters.typical_p < 1.0:
        keep &= typical(np.where(keep, tempered, 0.0) / tempered[keep].sum(), parameters.typical_p)
    kept = np.where(keep, tempered, 0.0)
    return keep, np.asarray(kept / kept.sum())


def typical(probabilities: NDArray[np.float64], typical_p: float) -> NDArray[np.bool_]:
    """Sorts by |-ln p - H| and keeps tokens up to the first that reaches the share *typical_p*.

    As ``TypicalLogitsWarper`` of the library transformers does.
    """
    tokens = np.flatnonzero(probabilities)
    surprisal = -np.log(probabilities[tokens])
    shift = np.abs(surprisal - (probabilities[tokens] * surprisal).sum())
    order = np.argsort(shift, kind="stable")
    running = np.cumsum(probabilities[tokens[order]])
    check_distance(running, typical_p)
    last = int((running < typical_p).sum())
    if np.diff(shift[order[: last + 2]]).min(initial=1.0) < 1e-3:
        raise TooCloseError
    keep = np.zeros(probabilities.size, dtype=bool)
    keep[tokens[order[: last + 1]]] = True
    return keep


def random_case(rng: np.random.Generator) -> tuple[NDArray[np.float32], float, SamplingParameters]:
    vocab_size = int(rng.integers(2, 200))
    logits = rng.normal(0.0, rng.choice([0.5, 2.0, 5.0]), vocab_size).astype(np.float32)
    logits[rng.random(vocab_size) < rng.choice([0.0, 0.3])] = -np.inf
    logits[rng.integers(vocab_size)] = 6.0
    parameters = SamplingParameters(
        top_k=int(rng.choice([0, -1, rng.integers(1, vocab_size + 1)])),
        min_p=float(rng.choice([0.0, rng.random() ** 3])),
        top_p=float(rng.choice([1.0, 1.0 - rng.random()])),
        typical_p=float(rng.choice([1.0, 1.0, 1.0 - rng.random()])),
        top_n_sigma=float(rng.choice([0.0, 3.0 * rng.random()])),
        truncate_first=bool(rng.random() < 0.3),
    )
    return logits, float(10.0 ** rng.uniform(-0.7, 0.7)), parameters


@pytest.mark.heavy
def test_equals_the_usual_sequential_filters() -> None:
    rng = np.random.default_rng(77)
    compared, cutting = 0, Counter[str]()
    for _ in range(2_500):
        logits, temperature, parameters = random_case(rng)
        try:
            keep, expected = survivors(logits.astype(np.float64), temperature, parameters)
        except TooCloseError:
            continue
        order = np.argsort(-logits, kind="stable")
        running = np.cumsum(expected[order])
        u = float(rng.uniform(1e-4, 1.0 - 1e-4))
        rank = int(np.searchsorted(running, u))
        if np.abs(running - u).min() < MARGIN:
            continue
        for selector in SELECTORS:
            result = pick(selector, logits, temperature, parameters, u)
            assert result.token_ids[0] == order[rank], (u, temperature, parameters)
            assert result.rank[0] == rank
            assert result.probability[0] == pytest.approx(expected[order[rank]], rel=1e-4)
            assert result.candidates[0] == keep.sum(), (temperature, parameters)
        compared += 1
        cutting.update(name for name, off in FILTERS.items() if getattr(parameters, name) != off)
    assert compared > 1_000
    assert min(cutting[name] for name in FILTERS) > 200, cutting


def candidates(
    selector: AnySelector, logits: list[float], temperature: float = 1.0, **filters: object
) -> int:
    parameters = SamplingParameters.model_validate(filters)
    row = np.array(logits, dtype=np.float32)
    return int(pick(selector, row, temperature, parameters, 0.5).candidates[0])


HALVES = [math.log(4.0), math.log(2.0), 0.0, 0.0]
"""Probabilities 1/2, 1/4, 1/8, 1/8."""


@both
def test_each_filter_alone(selector: AnySelector) -> None:
    assert candidates(selector, HALVES) == 4
    assert candidates(selector, HALVES, top_k=-1) == 4
    assert candidates(selector, HALVES, top_k=3) == 3
    assert candidates(selector, HALVES, top_k=10**9) == 4
    assert candidates(selector, HALVES, min_p=0.4) == 2
    assert candidates(selector, HALVES, min_p=1.0) == 1
    assert candidates(selector, HALVES, top_p=0.45) == 1
    assert candidates(selector, HALVES, top_p=0.7) == 2
    assert candidates(selector, HALVES, top_p=1e-300) == 1


@both
def test_top_n_sigma_counts_deviations_below_the_maximum(selector: AnySelector) -> None:
    """Logits 0 and 2 in equal numbers deviate from their mean by 1; masked ones do not count."""
    logits = [2.0, 0.0, 2.0, 0.0, -math.inf]
    assert candidates(selector, logits, top_n_sigma=1.999) == 2
    assert candidates(selector, logits, top_n_sigma=2.0) == 4
    assert candidates(selector, logits, top_n_sigma=1e-6) == 2
    assert candidates(selector, logits, top_n_sigma=1e6) == 4
    assert candidates(selector, [3.0] * 7, top_n_sigma=1.0) == 7
    # It looks at logits, so temperature does not matter.
    for temperature in (0.1, 10.0):
        assert candidates(selector, HALVES, temperature, top_n_sigma=1.5) == 2


@both
def test_typical_p_prefers_tokens_of_average_surprise(selector: AnySelector) -> None:
    """Surprisals of 1, 2, 3 and 3 bits, 1.75 on average: the second token is the most typical."""
    row = np.array(HALVES, dtype=np.float32)
    for share, kept in ((0.2, {1}), (0.26, {0, 1}), (0.76, {0, 1, 2}), (0.9, {0, 1, 2, 3})):
        parameters = SamplingParameters(typical_p=share)
        results = [pick(selector, row, 1.0, parameters, u) for u in np.arange(0.01, 1.0, 0.01)]
        assert {int(result.token_ids[0]) for result in results} == kept
        assert {int(result.candidates[0]) for result in results} == {len(kept)}


@both
def test_typical_p_acts_on_what_the_others_left_at_the_temperature_of_the_draw(
    selector: AnySelector,
) -> None:
    """Cold enough, the first token is the typical one even with truncate_first."""
    row = np.array(HALVES, dtype=np.float32)
    for temperature, first in ((1.0, 1), (0.2, 0)):
        for truncate_first in (False, True):
            parameters = SamplingParameters(typical_p=0.2, truncate_first=truncate_first)
            assert pick(selector, row, temperature, parameters, 0.5).token_ids[0] == first
    parameters = SamplingParameters(typical_p=0.2, top_k=2)
    # Of 2/3 and 1/3 the first is nearer to their entropy.
    assert pick(selector, row, 1.0, parameters, 0.5).token_ids[0] == 0


@both
def test_top_p_renormalises_over_what_the_others_left(selector: AnySelector) -> None:
    """1/2 of all is 2/3 of the first two: top-p 0.6 needs two tokens, after top-k 2 only one."""
    assert candidates(selector, HALVES, top_p=0.6) == 2
    assert candidates(selector, HALVES, top_p=0.6, top_k=2) == 1
    assert candidates(selector, HALVES, top_p=0.6, min_p=0.4) == 1
    assert candidates(selector, HALVES, top_p=0.6, top_n_sigma=1.5) == 1


@both
def test_truncate_first_filters_before_temperature(selector: AnySelector) -> None:
    """Cooling concentrates the mass, so the same top-p keeps fewer tokens after it."""
    assert candidates(selector, HALVES, 0.25, top_p=0.7) == 1
    assert candidates(selector, HALVES, 0.25, top_p=0.7, truncate_first=True) == 2
    assert candidates(selector, HALVES, 4.0, min_p=0.4) == 4
    assert candidates(selector, HALVES, 4.0, min_p=0.4, truncate_first=True) == 2


@both
def test_min_p_of_one_keeps_the_ties_of_the_maximum(selector: AnySelector) -> None:
    assert candidates(selector, [1.0, 1.0, 1.0, 0.0], min_p=1.0) == 3


@both
def test_top_k_cuts_ties_by_token_id(selector: AnySelector) -> None:
    for vocab_size in (5, 20_000):
        row = np.zeros(vocab_size, dtype=np.float32)
        parameters = SamplingParameters(top_k=2)
        results = [pick(selector, row, 1.0, parameters, u) for u in np.arange(0.1, 1.0, 0.1)]
        assert {int(result.token_ids[0]) for result in results} == {0, 1}


@both
def test_probabilities_of_the_kept_tokens_sum_to_one(selector: AnySelector) -> None:
    rng = np.random.default_rng(8)
    logits = rng.normal(0.0, 2.0, 40).astype(np.float32)
    parameters = SamplingParameters(top_k=20, top_p=0.9, min_p=0.01)
    found = {}
    for u in np.linspace(1e-6, 1.0 - 1e-6, 1_000):
        result = pick(selector, logits, 0.8, parameters, u)
        found[int(result.token_ids[0])] = float(result.probability[0])
        count = int(result.candidates[0])
    assert len(found) == count
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-15 * count)
