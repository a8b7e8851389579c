# SPDX-License-Identifier: Apache-2.0
"""Objectives, gradients and the loop that follows them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers import HeadWeights
from qr_sampler_tsd.train import (
    Examples,
    FitSettings,
    cross_entropy,
    distil_head,
    fine_tune_acceptance,
    fit_head,
    head_gradients,
    rejection,
)
from qr_sampler_tsd.train.fitting import Objective

V, B, C, WIDTH = 9, 6, 2, 3
OBJECTIVES = pytest.mark.parametrize("objective", [cross_entropy, rejection])


def laws(seed: int, rows: int = B) -> FloatArray:
    return np.random.default_rng(seed).dirichlet(np.full(V, 0.5), size=rows)


def central_difference(f: Callable[[FloatArray], float], at: FloatArray) -> FloatArray:
    slopes = np.empty_like(at)
    for place in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[place] = 1e-6
        slopes[place] = (f(at + step) - f(at - step)) / 2e-6
    return slopes


@OBJECTIVES
def test_objectives_and_their_gradients(objective: Objective) -> None:
    logits, targets = np.random.default_rng(1).normal(size=(B, V)), laws(2)
    # The formulas keep the precision that they are given.
    losses, gradient = objective(logits, targets)  # type: ignore[arg-type]
    q = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = {
        cross_entropy: -(targets * np.log(q)).sum(axis=1),
        rejection: 0.5 * np.abs(targets - q).sum(axis=1),
    }[objective]  # type: ignore[index]
    assert np.allclose(losses, expected, atol=1e-12)
    # No p is near its q, where the rejection has a kink.
    assert np.abs(targets - q).min() > 1e-5
    slopes = central_difference(lambda z: float(objective(z, targets)[0].sum()), logits)  # type: ignore[arg-type]
    assert np.allclose(gradient, slopes, atol=1e-8)
    assert np.abs(gradient.sum(axis=1)).max() < 1e-12


def test_rejection_needs_no_change_where_the_laws_agree() -> None:
    p = laws(3).astype(np.float32)
    losses, gradient = rejection(np.log(p), p)
    assert np.abs(losses).max() < 1e-6
    # At the kink any subgradient will do; this one is bounded by q.
    assert (np.abs(gradient) <= p + 1e-6).all()


def small_head() -> HeadWeights:
    rng = np.random.default_rng(4)
    return HeadWeights(
        tables=rng.normal(size=(C, 5, WIDTH)).astype(np.float32),
        hidden_bias=rng.normal(size=WIDTH).astype(np.float32),
        output=rng.normal(size=(V, WIDTH)).astype(np.float32),
        output_bias=rng.normal(size=V).astype(np.float32),
    )


def reference_loss(
    parameters: dict[str, FloatArray],
    contexts: NDArray[np.int32],
    targets: FloatArray,
    objective: Objective,
) -> float:
    """The mean loss of a batch in float64, example by example."""
    losses = []
    buckets = parameters["tables"].shape[1] - 1
    for context, target in zip(contexts, targets, strict=True):
        total = parameters["hidden_bias"].copy()
        for position, token in enumerate(context):
            total += parameters["tables"][position, buckets if token < 0 else token % buckets]
        logits = parameters["output"] @ np.tanh(total) + parameters["output_bias"]
        losses.append(float(objective(logits[None], target[None])[0][0]))  # type: ignore[arg-type]
    return math.fsum(losses) / len(losses)


@OBJECTIVES
def test_gradients_of_a_head_are_those_of_finite_differences(objective: Objective) -> None:
    weights, targets = small_head(), laws(5)
    # Tokens that share a bucket, repeat, and are absent.
    contexts = np.array([[0, 4], [4, -1], [8, 8], [0, 0], [3, 7], [1, 2]], np.int32)
    loss, gradients = head_gradients(weights, contexts, targets.astype(np.float32), objective)
    parameters = {name: getattr(weights, name).astype(np.float64) for name in gradients}
    assert set(parameters) == set(HeadWeights.__slots__)
    assert loss == pytest.approx(reference_loss(parameters, contexts, targets, objective), 1e-5)
    for name, gradient in gradients.items():

        def moved(value: FloatArray, name: str = name) -> float:
            return reference_loss({**parameters, name: value}, contexts, targets, objective)

        slopes = central_difference(moved, parameters[name])
        assert np.abs(slopes).max() > 1e-3
        assert np.allclose(gradient, slopes, atol=2e-6), name


def examples(seed: int = 6, rows: int = 20) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples(
        contexts=rng.integers(-1, V, size=(rows, C)).astype(np.int32),
        ids=np.tile(np.arange(V, dtype=np.int32), (rows, 1)),
        probs=laws(seed, rows).astype(np.float32),
        vocab_size=V,
    )


def test_adam_is_the_algorithm_of_its_paper() -> None:
    """Against algorithm 1 in float64, for every weight of a head; the rate falls as stated."""
    settings = FitSettings(steps=7, batch=5, learning_rate=0.03, seed=9)
    given = examples()
    fitted = fit_head(small_head(), given, cross_entropy, settings)
    rng = np.random.default_rng(9)
    weights = small_head()
    moments: dict[str, tuple[FloatArray | float, FloatArray | float]] = {}
    for step in range(1, 8):
        chosen = rng.integers(len(given), size=5)
        dense = given.dense(chosen)
        _, gradients = head_gradients(weights, given.contexts[chosen], dense, cross_entropy)
        rate = 0.03 * 0.5 * (1 + math.cos(math.pi * (step - 1) / 7))
        changed = {}
        for name, gradient in gradients.items():
            g = gradient.astype(np.float64)
            m, v = moments.get(name, (0.0, 0.0))
            moments[name] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            update = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            changed[name] = (getattr(weights, name) - rate * update).astype(np.float32)
        weights = HeadWeights(**changed)
    for name in HeadWeights.__slots__:
        # A first step has the full rate whatever the gradient is, unless that is nearly 0.
        assert np.allclose(getattr(fitted, name), getattr(weights, name), atol=2e-4), name


def test_a_fit_is_reproducible_and_leaves_its_start_alone() -> None:
    settings = FitSettings(steps=5, batch=4, seed=1)
    start = small_head()
    before = start.tables.copy()
    first, again = (fit_head(start, examples(), rejection, settings) for _ in range(2))
    other = fit_head(start, examples(), rejection, FitSettings(steps=5, batch=4, seed=2))
    assert np.array_equal(first.tables, again.tables)
    assert not np.array_equal(first.tables, other.tables)
    assert np.array_equal(start.tables, before)
    assert fit_head(start, examples(), rejection, FitSettings(steps=0)) is start


def every_token_once() -> Examples:
    """Each token has its own distribution."""
    return Examples(
        contexts=np.arange(V, dtype=np.int32)[:, None],
        ids=np.tile(np.arange(V, dtype=np.int32), (V, 1)),
        probs=laws(7, V).astype(np.float32),
        vocab_size=V,
    )


def test_every_step_is_reported() -> None:
    reports: list[tuple[int, int, float]] = []
    settings = FitSettings(steps=30, batch=200, learning_rate=0.1)
    distil_head(
        every_token_once(),
        settings=settings,
        context_tokens=1,
        width=8,
        progress=lambda *report: reports.append(report),
    )
    assert [report[:2] for report in reports] == [(step, 30) for step in range(1, 31)]
    assert reports[-1][2] < reports[0][2]


def test_a_head_with_room_learns_every_law() -> None:
    given = every_token_once()
    settings = FitSettings(steps=1500, batch=32, learning_rate=0.03)
    weights = distil_head(given, settings=settings, context_tokens=1, width=12)
    logits = weights.logits(given.contexts)
    loss = cross_entropy(logits, given.probs)[0]
    entropy = -(given.probs * np.log(given.probs + 1e-30)).sum(axis=1)
    assert (loss - entropy).max() < 0.01


@pytest.mark.heavy
def test_fine_tuning_raises_the_acceptance_of_a_head_without_room() -> None:
    """One hidden unit for 16 random distributions over 32 tokens; acceptance is exact, not sampled.

    The control continues with cross entropy for as many steps: it is the objective that helps.
    """
    tokens, vocab = 16, 32
    targets = np.random.default_rng(0).dirichlet(np.full(vocab, 0.3), size=tokens)
    given = Examples(
        contexts=np.arange(tokens, dtype=np.int32)[:, None],
        ids=np.tile(np.arange(vocab, dtype=np.int32), (tokens, 1)),
        probs=targets.astype(np.float32),
        vocab_size=vocab,
    )
    settings = FitSettings(steps=1200, batch=32, learning_rate=0.02)
    distilled = distil_head(given, settings=settings, context_tokens=1, width=1)
    tuning = FitSettings(steps=1200, batch=32, learning_rate=0.01, seed=1)
    tuned = fine_tune_acceptance(distilled, given, settings=tuning)
    control = fit_head(distilled, given, cross_entropy, tuning)

    def acceptance(weights: HeadWeights) -> float:
        return float((1 - rejection(weights.logits(given.contexts), given.probs)[0]).mean())

    assert acceptance(tuned) > acceptance(control) + 0.02
    assert acceptance(tuned) > acceptance(distilled) + 0.02
    # What it pays with is cross entropy.
    by_entropy = [
        cross_entropy(weights.logits(given.contexts), given.probs)[0].mean()
        for weights in (tuned, control)
    ]
    assert by_entropy[0] > by_entropy[1]


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"batch": 0}, {"learning_rate": 0}, {"learning_rate": math.inf}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ProposerError, match=f"{next(iter(wrong))}="):
        FitSettings(**wrong)  # type: ignore[arg-type]


def test_examples_that_do_not_fit_are_refused() -> None:
    given, settings = examples(), FitSettings(steps=1)
    narrow = HeadWeights.initial(np.ones(V), context_tokens=C + 1, width=1, buckets=V, rng=0)
    other = HeadWeights.initial(np.ones(V + 1), context_tokens=C, width=1, buckets=V, rng=0)
    for weights in (narrow, other):
        with pytest.raises(ProposerError, match="do not fit"):
            fit_head(weights, given, cross_entropy, settings)
    empty = Examples(
        contexts=given.contexts[:0], ids=given.ids[:0], probs=given.probs[:0], vocab_size=V
    )
    with pytest.raises(ProposerError, match="do not fit"):
        fit_head(small_head(), empty, cross_entropy, settings)
    with pytest.raises(ProposerError, match="examples"):
        distil_head(empty, settings=settings)
