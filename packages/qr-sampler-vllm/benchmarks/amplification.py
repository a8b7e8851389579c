# SPDX-License-Identifier: Apache-2.0
"""What it costs to turn bytes into u."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.gates import BATCHES
from benchmarks.sources import SAMPLE_COUNT
from benchmarks.timing import Budget, Contender, compare
from qr_sampler import ZScoreMeanAmplifier
from qr_sampler.settings import BYTE_MEAN, BYTE_STD
from qr_sampler_accel.host.byte_counts import CompiledCounts

__all__ = ["measure_amplification"]


def measure_amplification(budget: Budget) -> dict[int, tuple[float, float]]:
    """Returns, by batch size, the ratio to the naive loop and the microseconds per row."""
    return {batch: _measured(batch, budget) for batch in BATCHES}


def _measured(batch: int, budget: Budget) -> tuple[float, float]:
    data = np.random.default_rng(batch).bytes(batch * SAMPLE_COUNT)
    amplifier = ZScoreMeanAmplifier()

    def together() -> object:
        blocks = np.frombuffer(data, dtype=np.uint8).reshape(batch, SAMPLE_COUNT)
        return amplifier.amplify(blocks, CompiledCounts(blocks)).u

    timings = compare(
        [
            Contender("naive", _nothing, lambda: _row_by_row(data, batch)),
            Contender("ours", _nothing, together),
        ],
        budget,
    )
    return timings.ratio("ours", "naive"), timings.microseconds("ours") / batch


def _row_by_row(data: bytes, batch: int) -> list[float]:
    error = BYTE_STD / math.sqrt(SAMPLE_COUNT)
    us = []
    for start in range(0, batch * SAMPLE_COUNT, SAMPLE_COUNT):
        block = np.frombuffer(data[start : start + SAMPLE_COUNT], dtype=np.uint8)
        z = (float(np.mean(block)) - BYTE_MEAN) / error
        us.append(0.5 * math.erfc(-z / math.sqrt(2.0)))
    return us


def _nothing(iteration: int) -> None:
    del iteration
