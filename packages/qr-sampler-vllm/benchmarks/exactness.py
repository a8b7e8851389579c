# SPDX-License-Identifier: Apache-2.0
"""Whether the fast selector picks the readable one's tokens on the very rows of the benchmark."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.logit_sets import LogitSet
from qr_sampler import ReferenceSelector, Rows, Selector
from qr_sampler.settings import SamplingParameters
from qr_sampler_accel.host.selector import CompiledSelector

__all__ = ["Exactness", "measure_exactness"]

TEMPERATURES: Final = (0.3, 0.7, 1.0, 1.5)
TRUNCATIONS: Final = ((0, 1.0), (50, 1.0), (0, 0.9), (50, 0.9))
EDGES: Final = (2.0**-53, 1e-12, 1e-6, 1e-3, 0.999, 1 - 1e-6, 1 - 1e-10, 1 - 2.0**-53)
UNIFORMS: Final = 28
SEED: Final = 4


class Exactness(NamedTuple):
    """How often two selectors were compared, and how often they disagreed."""

    cases: int
    """Number of combinations of row, u, temperature, top-k and top-p."""
    mismatches: int
    """How many of them led to different tokens."""


def measure_exactness(sets: Iterable[LogitSet], count: int) -> Exactness:
    """Returns the comparison of both selectors; u includes the edges of its interval.

    Args:
        sets: The sets of logits.
        count: Rows of each set.
    """
    us = np.concatenate([EDGES, np.random.default_rng(SEED).uniform(size=UNIFORMS)])
    fast, reference = CompiledSelector(), ReferenceSelector()
    cases = mismatches = 0
    for each, temperature, (top_k, top_p) in itertools.product(sets, TEMPERATURES, TRUNCATIONS):
        logits = each.rows[:count].numpy()
        parameters = SamplingParameters.model_validate({"top_k": top_k, "top_p": top_p})
        rows = Rows([parameters] * count)
        found = [_tokens(one, logits, rows, temperature, us) for one in (fast, reference)]
        cases += found[0].size
        mismatches += int(np.count_nonzero(found[0] != found[1]))
    return Exactness(cases, mismatches)


def _tokens(
    selector: Selector[Any, Any],
    logits: NDArray[np.float32],
    rows: Rows,
    temperature: float,
    us: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Returns the tokens for each u and row. Shape ``(len(us), B)``."""
    temperatures = np.full(len(rows), temperature)
    plan = selector.prepare(selector.measure(logits, rows, temperatures), temperatures)
    return np.stack([selector.pick(plan, np.full(len(rows), u)).token_ids for u in us.tolist()])
