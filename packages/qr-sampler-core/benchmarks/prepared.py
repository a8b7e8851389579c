# SPDX-License-Identifier: Apache-2.0
"""A selector and a source that cost nothing, so that what is measured is everything else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from qr_sampler import (
    DroppedBytes,
    EntropySource,
    Measurement,
    Rows,
    SamplingPipeline,
    SelectionResult,
    Settings,
)
from qr_sampler.arrays import FloatArray, IndexArray, Logits
from qr_sampler.host import NumpyLogits
from qr_sampler.selection import RowLaws

__all__ = ["BLOCK_BYTES", "PreparedLogits", "PreparedSource"]

BLOCK_BYTES = 64
"""Number of bytes that decide a token."""


class PreparedSource(EntropySource):
    """Hands out bytes that it has made before."""

    name = "prepared"
    blocks = False

    def __init__(self, most_rows: int) -> None:
        data = np.random.default_rng(0).bytes(BLOCK_BYTES * most_rows)
        self._draws = {BLOCK_BYTES * rows: data[: BLOCK_BYTES * rows] for rows in (1, most_rows)}

    def get_random_bytes(self, n: int) -> bytes:
        """Returns the same bytes every time."""
        return self._draws[n]


class PreparedSelector:
    """Has measured and selected before it is asked. It never selects what ends a sequence."""

    def measure(
        self,
        logits: Logits,
        rows: Rows,
        temperature: FloatArray,
        settle: IndexArray | None = None,
    ) -> Measurement:
        """Returns numbers of a usual size for every row."""
        count = len(rows)
        return Measurement(
            lines=np.arange(count),
            rows=rows,
            vocab_size=logits.shape[1],
            logits_ready_ns=time.monotonic_ns(),
            entropy_nats=np.linspace(0.5, 2.5, count),
            varentropy_nats2=np.linspace(0.25, 1.5, count),
            logit_deviation=np.full(count, np.nan),
        )

    def prepare(self, measurement: Measurement, temperature: FloatArray) -> int:
        """Returns the number of rows, which is all that is needed."""
        return len(measurement.lines)

    def pick(self, plan: int, u: FloatArray) -> SelectionResult:
        """Returns the first token for every row."""
        return SelectionResult(
            token_ids=np.zeros(plan, np.intp),
            rank=np.zeros(plan, np.intp),
            probability=np.full(plan, 0.5),
            candidates=np.full(plan, 16, np.intp),
        )

    def laws(self, plan: int) -> RowLaws:
        """Is not asked here: nothing is drafted."""
        raise NotImplementedError(f"{plan} rows have no laws")


class PreparedLogits(NumpyLogits):
    """Logits whose tokens are selected already."""

    def pipeline(
        self,
        logits: Any,
        settings: Settings,
        source: EntropySource,
        on_dropped: Callable[[DroppedBytes], object],
    ) -> SamplingPipeline:
        """Returns a pipeline that selects nothing."""
        return SamplingPipeline(settings, source, PreparedSelector(), on_dropped=on_dropped)
