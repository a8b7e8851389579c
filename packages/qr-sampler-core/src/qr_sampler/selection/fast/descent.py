# SPDX-License-Identifier: Apache-2.0
"""Where a running total over crowded tokens reaches a goal, found without sorting them.

A pivot parts the tokens into larger, equal and smaller ones. The goal is reached in one of the
three parts, and the others are done with. With the median as the pivot each round halves what is
left, so that all rounds together look at twice as many tokens as there are, wherever their logits
lie: within one ulp of each other, on two plateaus, or all in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from qr_sampler.arrays import FloatArray, Logits

__all__ = ["Goal", "Held", "Landing", "land"]


class Held(NamedTuple):
    """What some bins hold."""

    tokens: int
    """Number of tokens."""
    mass: int
    """Their mass."""


class Goal(NamedTuple):
    """What a running total has to reach."""

    amount: int
    """From 1 to the total."""
    counts: bool
    """Whether tokens are counted; otherwise their masses are added up."""


class Landing(NamedTuple):
    """The logit at which a running total reaches a goal."""

    logit: np.float32
    """Tokens that have it bring the total to the goal."""
    rank: int
    """How many tokens have a larger one."""
    mass: int
    """Their mass."""


def land(values: Logits, goal: Goal, weigh: Callable[[Logits], FloatArray]) -> Landing:
    """Returns where the running total over *values*, largest first, reaches *goal*.

    Args:
        values: Shape ``(N,)``, float32, the logits of N tokens in any order.
        goal: From 1 to what the N tokens have.
        weigh: Returns the masses of logits. Shapes ``(M,)``.
    """
    rank = mass = 0
    while True:
        middle = values.size // 2
        pivot: np.float32 = np.partition(values, middle)[middle]
        larger = values[values > pivot]
        above = (larger.size, int(weigh(larger).sum()))
        equal = int(np.count_nonzero(values == pivot))
        level = (equal, equal * int(weigh(np.array([pivot]))[0]))
        reached = (rank, mass)[not goal.counts] + above[not goal.counts]
        if reached >= goal.amount:
            values = larger
            continue
        rank, mass = rank + above[0], mass + above[1]
        if reached + level[not goal.counts] >= goal.amount:
            return Landing(pivot, rank, mass)
        rank, mass = rank + level[0], mass + level[1]
        values = values[values < pivot]
