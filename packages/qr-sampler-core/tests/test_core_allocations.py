# SPDX-License-Identifier: Apache-2.0
"""The fast selector works in memory that it keeps: nothing as large as a row comes and goes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qr_sampler import FastSelector, ReferenceSelector, Rows, SamplingParameters, Selector

VOCAB_SIZE = 151_936
QUANTILES = (0.01, 0.5, 0.9, 0.999, 0.99999)

HEAD_LIMIT = 128 * 1024
"""Where the leading tokens decide; one byte per token would exceed it."""

LIMIT = 480 * 1024
"""Where a histogram decides; a float32 row would exceed it."""

PER_ROW = 6 * 1024
"""The plan of every further row of a batch."""


def language_model(rng: np.random.Generator) -> NDArray[np.float32]:
    ranks = rng.permutation(VOCAB_SIZE) + 2.0
    return (20.0 - 1.35 * np.log(ranks) + rng.normal(0.0, 0.3, VOCAB_SIZE)).astype(np.float32)


def bfloat16(row: NDArray[np.float32]) -> NDArray[np.float32]:
    return (row.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def row_of(kind: str) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    if kind in ("typical", "bfloat16"):
        row = language_model(rng)
        return row if kind == "typical" else bfloat16(row)
    row = rng.normal(0.0, 1.0, VOCAB_SIZE).astype(np.float32)
    if kind == "peaked":
        row[rng.integers(VOCAB_SIZE)] = 30.0
    return row


def growths(
    selector: Selector[Any, Any], kind: str, batch: int, parameters: SamplingParameters
) -> Iterator[int]:
    """Yields by how many bytes the memory in use grew within each step, after warming up."""
    logits, rows = np.stack([row_of(kind)] * batch), Rows([parameters] * batch)
    temperature, settle = np.full(batch, 0.7), np.zeros(batch, dtype=np.intp)

    def step(u: float) -> None:
        measurement = selector.measure(logits, rows, temperature, settle)
        selector.pick(selector.prepare(measurement, temperature), np.full(batch, u))

    for u in QUANTILES:
        step(u)
    tracemalloc.start()
    try:
        for u in QUANTILES:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            step(u)
            yield tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("kind", ["typical", "bfloat16", "peaked", "flat"])
def test_a_step_allocates_far_less_than_a_row(kind: str, batch: int) -> None:
    extra = PER_ROW * (batch - 1)
    plain, filtered = SamplingParameters(), SamplingParameters(top_k=50, min_p=0.02, top_p=0.95)
    assert max(growths(FastSelector(), kind, batch, plain)) <= LIMIT + extra
    assert max(growths(FastSelector(), kind, batch, filtered)) <= HEAD_LIMIT + extra


def test_a_selector_that_sorts_would_be_noticed() -> None:
    parameters = SamplingParameters(top_k=50)
    assert min(growths(ReferenceSelector(), "flat", 1, parameters)) >= 8 * VOCAB_SIZE
