# SPDX-License-Identifier: Apache-2.0
"""Truncation against the usual definitions: filters one after the other on renormalised softmax.

The comparison is in float64 and leaves out cases where a threshold falls within rounding of a
probability; the exact behaviour there is the business of the oracle tests.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from qr_sampler import Rows, SamplingParameters, TokenSelector

MARGIN = 1e-5
"""Relative distance to a threshold, below which float32 exponents may decide otherwise."""


class TooCloseError(Exception):
    """A threshold lies within rounding of a value."""


def check_distance(values: NDArray[np.float64], threshold: float) -> None:
    if np.any(np.abs(values - threshold) <= MARGIN * max(threshold, 1e-9)):
        raise TooCloseError


def survivors(
    logits: NDArray[np.float64], temperature: float, parameters: SamplingParameters
) -> NDArray[np.float64]:
    """Returns the distribution after temperature and the filters, zero for removed tokens."""
    tempered = softmax(logits / temperature)
    probabilities = softmax(logits) if parameters.truncate_first else tempered
    keep = np.ones(logits.size, dtype=bool)
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
    kept = np.where(keep, tempered, 0.0)
    return np.asarray(kept / kept.sum())


def random_case(rng: np.random.Generator) -> tuple[NDArray[np.float32], float, SamplingParameters]:
    vocab_size = int(rng.integers(2, 200))
    logits = rng.normal(0.0, rng.choice([0.5, 2.0, 5.0]), vocab_size).astype(np.float32)
    logits[rng.random(vocab_size) < rng.choice([0.0, 0.3])] = -np.inf
    logits[rng.integers(vocab_size)] = 6.0
    parameters = SamplingParameters(
        top_k=int(rng.choice([0, -1, rng.integers(1, vocab_size + 1)])),
        min_p=float(rng.choice([0.0, rng.random() ** 3])),
        top_p=float(rng.choice([1.0, 1.0 - rng.random()])),
        truncate_first=bool(rng.random() < 0.3),
    )
    return logits, float(10.0 ** rng.uniform(-0.7, 0.7)), parameters


def test_equals_the_usual_sequential_filters() -> None:
    rng = np.random.default_rng(77)
    selector, compared, truncated = TokenSelector(), 0, 0
    for _ in range(3_000):
        logits, temperature, parameters = random_case(rng)
        try:
            expected = survivors(logits.astype(np.float64), temperature, parameters)
        except TooCloseError:
            continue
        order = np.argsort(-logits, kind="stable")
        running = np.concatenate([[0.0], np.cumsum(expected[order])])
        u = float(rng.uniform(1e-4, 1.0 - 1e-4))
        rank = int(np.searchsorted(running[1:], u))
        if np.abs(running - u).min() < MARGIN:
            continue
        plan = selector.prepare(logits[np.newaxis], np.array([temperature]), Rows([parameters]))
        result = selector.pick(plan, np.array([u]))
        assert result.token_ids[0] == order[rank], (u, temperature, parameters)
        assert result.probability[0] == pytest.approx(expected[order[rank]], rel=1e-4)
        visible = expected[order] > 2.0**-30
        assert result.candidates[0] >= visible.sum()
        assert result.candidates[0] <= (expected > 0.0).sum()
        compared += 1
        truncated += int((expected == 0.0).sum() > np.isneginf(logits).sum())
    assert compared > 2_000
    assert truncated > 1_000


def candidates(logits: list[float], temperature: float = 1.0, **filters: object) -> int:
    parameters = SamplingParameters.model_validate(filters)
    array = np.array([logits], dtype=np.float32)
    selector = TokenSelector()
    plan = selector.prepare(array, np.array([temperature]), Rows([parameters]))
    return int(selector.pick(plan, np.array([0.5])).candidates[0])


def test_each_filter_alone() -> None:
    # Probabilities 1/2, 1/4, 1/8, 1/8.
    logits = [np.log(4.0), np.log(2.0), 0.0, 0.0]
    assert candidates(logits) == 4
    assert candidates(logits, top_k=-1) == 4
    assert candidates(logits, top_k=3) == 3
    assert candidates(logits, top_k=10**9) == 4
    assert candidates(logits, min_p=0.4) == 2
    assert candidates(logits, min_p=1.0) == 1
    assert candidates(logits, top_p=0.45) == 1
    assert candidates(logits, top_p=0.7) == 2
    assert candidates(logits, top_p=1e-300) == 1


def test_top_p_renormalises_over_what_the_others_left() -> None:
    """1/2 of all is 2/3 of the first two: top-p 0.6 needs two tokens, after top-k 2 only one."""
    logits = [np.log(4.0), np.log(2.0), 0.0, 0.0]
    assert candidates(logits, top_p=0.6) == 2
    assert candidates(logits, top_p=0.6, top_k=2) == 1
    assert candidates(logits, top_p=0.6, min_p=0.4) == 1


def test_truncate_first_filters_before_temperature() -> None:
    """Cooling concentrates the mass, so the same top-p keeps fewer tokens after it."""
    logits = [np.log(4.0), np.log(2.0), 0.0, 0.0]
    assert candidates(logits, temperature=0.25, top_p=0.7) == 1
    assert candidates(logits, temperature=0.25, top_p=0.7, truncate_first=True) == 2
    assert candidates(logits, temperature=4.0, min_p=0.4) == 4
    assert candidates(logits, temperature=4.0, min_p=0.4, truncate_first=True) == 2


def test_min_p_of_one_keeps_the_ties_of_the_maximum() -> None:
    assert candidates([1.0, 1.0, 1.0, 0.0], min_p=1.0) == 3


def test_top_k_cuts_ties_by_token_id() -> None:
    selector = TokenSelector()
    logits = np.zeros((1, 5), dtype=np.float32)
    plan = selector.prepare(logits, np.ones(1), Rows([SamplingParameters(top_k=2)]))
    chosen = {
        int(selector.pick(plan, np.array([u])).token_ids[0]) for u in np.arange(0.01, 1, 0.01)
    }
    assert chosen == {0, 1}


def test_probabilities_of_the_kept_tokens_sum_to_one() -> None:
    rng = np.random.default_rng(8)
    logits = rng.normal(0.0, 2.0, 40).astype(np.float32)
    parameters = SamplingParameters(top_k=20, top_p=0.9, min_p=0.01)
    selector = TokenSelector()
    plan = selector.prepare(logits[np.newaxis], np.array([0.8]), Rows([parameters]))
    found = {}
    for u in np.linspace(1e-6, 1.0 - 1e-6, 5_000):
        result = selector.pick(plan, np.array([u]))
        found[int(result.token_ids[0])] = float(result.probability[0])
        count = int(result.candidates[0])
    assert len(found) == count
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-15 * count)
