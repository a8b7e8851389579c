# SPDX-License-Identifier: Apache-2.0
"""Compiles the loops of a step while the engine starts, so that no token waits for the compiler."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.arrays import Logits
from qr_sampler.health.whole_draws import SHORTEST_DRAW
from qr_sampler.rows import Rows
from qr_sampler.sampling.planner import StepPlanner
from qr_sampler.selection.fast.bins import FEW, BinnedRow
from qr_sampler.selection.fast.descent import Goal, Held
from qr_sampler.settings import SamplingParameters
from qr_sampler_accel.host.arithmetic.statistics import compiled_deviation
from qr_sampler_accel.host.byte_counts import CompiledCounts
from qr_sampler_accel.host.health_pass import CompiledMeasures
from qr_sampler_accel.host.passes import CompiledPasses
from qr_sampler_accel.host.selector import CompiledSelector

__all__ = ["warm_up"]

VOCAB_SIZE: Final = 4096
"""Large enough for every loop over rows of many tokens to be needed."""


def warm_up(*, logits_on_host: bool) -> None:
    """Runs every loop once on made-up numbers; takes some twenty seconds the first time.

    Args:
        logits_on_host: Whether logits are in the memory of the host, where blocks always are.
    """
    # Of the same type as what a source delivers: read-only.
    CompiledCounts(np.frombuffer(bytes(16), dtype=np.uint8).reshape(1, 16))
    health = CompiledMeasures(most_repeated=9)
    for size in (1, SHORTEST_DRAW):
        health.of(bytes(size))
    if not logits_on_host:
        return
    # A temperature that is known only after the measurement needs one loop more.
    parameters = SamplingParameters.model_validate({"temperature_strategy": "edt"})
    selector, rows = CompiledSelector(), Rows([parameters])
    for size in (FEW, VOCAB_SIZE):
        logits = np.linspace(-9.0, 0.0, size, dtype=np.float32).reshape(1, -1)
        selector.pick(StepPlanner(selector).prepare(logits, rows).selection, np.full(1, 0.5))
    _warm_up_for_open_rows(np.zeros(VOCAB_SIZE, dtype=np.float32))


def _warm_up_for_open_rows(logits: Logits) -> None:
    """Runs the loops over single rows, which those over a batch leave open."""
    passes = CompiledPasses(VOCAB_SIZE)
    passes.masses(logits, 2.0, 35)
    passes.weight(logits, logits[0], 2.0)
    compiled_deviation(logits)
    row, held = BinnedRow(logits, logits[0], 1.0, 35), Held(VOCAB_SIZE, VOCAB_SIZE << 35)
    passes.bins.totals(*row)
    passes.bins.leading(row, 1.0, 0)
    for counts in (True, False):
        landing = passes.bins.land(row, 0, 0, held, Goal(1, counts))
        passes.bins.token_at(logits, landing.logit, 0)
    passes.energies.totals(passes.energies.mean(row, None), 0, 0)
