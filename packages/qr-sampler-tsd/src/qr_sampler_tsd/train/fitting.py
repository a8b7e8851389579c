# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on the weights of a head, by Adam: any objective of logits and targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
from scipy import sparse

from qr_sampler_tsd._typing import IdArray, SingleArray
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers.head import HeadWeights
from qr_sampler_tsd.train.examples import Examples

__all__ = ["FitSettings", "Gradients", "Objective", "Progress", "fit_head", "head_gradients"]

Objective: TypeAlias = Callable[[SingleArray, SingleArray], tuple[SingleArray, SingleArray]]
"""Called as ``objective(logits, targets)``, both of shape ``(B, V)``: returns the losses, shape
``(B,)``, and the derivative of each by its logits, shape ``(B, V)``."""

Progress: TypeAlias = Callable[[int, int, float], None]
"""Called as ``progress(step, steps, loss)`` after every step, from 1 to *steps*."""

Gradients: TypeAlias = "dict[str, SingleArray]"
"""A derivative for each field of :class:`HeadWeights`, of its shape."""

_MOMENT_DECAYS: Final = (0.9, 0.999)
_SMALLEST_DIVISOR: Final = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How long and how fast.

    Raises:
        ProposerError: When a number is out of range.
    """

    steps: int = 2000
    """Optimiser steps, at least 0."""
    batch: int = 128
    """Examples of each step, at least 1, drawn with replacement."""
    learning_rate: float = 2e-3
    """At the first step, above 0; half a cosine leads to 0."""
    seed: int = 0
    """Of the order of the examples."""

    def __post_init__(self) -> None:
        """Checks every number."""
        if self.steps < 0 or self.batch < 1 or not 0 < self.learning_rate < math.inf:
            raise ProposerError(
                f"steps={self.steps} must be at least 0, batch={self.batch} at least 1, "
                f"learning_rate={self.learning_rate} a number above 0"
            )


def fit_head(
    weights: HeadWeights,
    examples: Examples,
    objective: Objective,
    settings: FitSettings,
    progress: Progress | None = None,
) -> HeadWeights:
    """Returns better weights; the same for the same arguments on the same machine.

    Args:
        weights: Where to begin; left as they are.
        examples: At least one, with contexts of at least C tokens.
        objective: What to make small, on average over the examples.
        settings: How long and how fast.
        progress: Told the mean loss of every step's examples.

    Raises:
        ProposerError: When examples and weights do not fit.
    """
    wide, needed = examples.contexts.shape[1], weights.context_tokens
    if not len(examples) or examples.vocab_size != weights.vocab_size or wide < needed:
        raise ProposerError(
            f"{len(examples)} examples of {wide} tokens from {examples.vocab_size} do not fit a "
            f"head that looks at {needed} from {weights.vocab_size}"
        )
    rng = np.random.default_rng(settings.seed)
    adam = _Adam()
    for step in range(1, settings.steps + 1):
        chosen = rng.integers(len(examples), size=settings.batch)
        contexts = examples.contexts[chosen, :needed]
        loss, gradients = head_gradients(weights, contexts, examples.dense(chosen), objective)
        share = 0.5 * (1 + math.cos(math.pi * (step - 1) / settings.steps))
        weights = adam.stepped(weights, gradients, settings.learning_rate * share)
        if progress is not None:
            progress(step, settings.steps, loss)
    return weights


def head_gradients(
    weights: HeadWeights, contexts: IdArray, targets: SingleArray, objective: Objective
) -> tuple[float, Gradients]:
    """Returns the mean loss of a batch and its derivative by every weight.

    Args:
        weights: Of the head.
        contexts: Shape ``(B, C)``, as :meth:`HeadWeights.table_rows` takes them.
        targets: Shape ``(B, V)``: distributions.
        objective: See :data:`Objective`.
    """
    rows = weights.table_rows(contexts)
    hidden = weights.hidden(rows)
    losses, by_logits = objective(hidden @ weights.output.T + weights.output_bias, targets)
    by_logits = by_logits / np.float32(len(contexts))
    by_sum = (by_logits @ weights.output) * (1 - hidden * hidden)
    gradients = {
        "tables": np.stack([_added_up(column, by_sum, weights) for column in rows.T]),
        "hidden_bias": by_sum.sum(axis=0),
        "output": by_logits.T @ hidden,
        "output_bias": by_logits.sum(axis=0),
    }
    return float(losses.mean()), gradients


def _added_up(rows: IdArray, values: SingleArray, weights: HeadWeights) -> SingleArray:
    """Returns one table with *values* added at *rows*: a product with an indicator matrix."""
    batch, table_rows = len(rows), weights.tables.shape[1]
    ones = np.ones(batch, np.float32)
    places = sparse.csr_array((ones, (rows, np.arange(batch))), shape=(table_rows, batch))
    table: SingleArray = places @ values
    return table


class _Adam:
    """Adam of Kingma and Ba 2015 (arXiv 1412.6980, algorithm 1), its moments in float32."""

    def __init__(self) -> None:
        self._steps = 0
        self._moments: dict[str, tuple[SingleArray, SingleArray]] = {}

    def stepped(self, weights: HeadWeights, gradients: Gradients, rate: float) -> HeadWeights:
        """Returns the weights after one step at *rate*; *gradients* are overwritten."""
        self._steps += 1
        first_decay, second_decay = (1 - decay**self._steps for decay in _MOMENT_DECAYS)
        # The corrections of both moments, as section 2 of the paper orders them.
        scale = np.float32(rate * math.sqrt(second_decay) / first_decay)
        changed = {}
        for name, gradient in gradients.items():
            change = self._direction(name, gradient)
            change *= -scale
            change += getattr(weights, name)
            changed[name] = change
        return replace(weights, **changed)

    def _direction(self, name: str, gradient: SingleArray) -> SingleArray:
        zero = np.zeros_like(gradient)
        first, second = self._moments.setdefault(name, (zero, zero.copy()))
        for moment, decay in zip((first, second), _MOMENT_DECAYS, strict=True):
            moment *= np.float32(decay)
        first += np.float32(1 - _MOMENT_DECAYS[0]) * gradient
        gradient *= gradient
        second += np.float32(1 - _MOMENT_DECAYS[1]) * gradient
        np.sqrt(second, out=gradient)
        gradient += np.float32(_SMALLEST_DIVISOR)
        return np.divide(first, gradient, out=gradient)
