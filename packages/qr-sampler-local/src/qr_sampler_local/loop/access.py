# SPDX-License-Identifier: Apache-2.0
"""How a session reads the logits of a loop, which stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from qr_sampler import (
    DroppedBytes,
    EntropySource,
    RowContext,
    Rows,
    SamplingPipeline,
    Settings,
    StepResult,
)
from qr_sampler.health import HealthMonitor, HealthPolicy

__all__ = ["ReadLogits", "health_tests"]


class ReadLogits:
    """Logits that are read and never written to; :func:`readable` has made them."""

    def pipeline(
        self,
        logits: Any,
        settings: Settings,
        source: EntropySource,
        on_dropped: Callable[[DroppedBytes], object],
    ) -> SamplingPipeline:
        """Returns the pipeline that is fastest where *logits* are."""
        if find_spec("qr_sampler_accel") is None:
            return SamplingPipeline(settings, source, on_dropped=on_dropped)
        from qr_sampler_accel import block_counts, device_selector, host_selector

        host = isinstance(logits, np.ndarray)
        selector: Any = host_selector() if host else device_selector()
        return SamplingPipeline(settings, source, selector, block_counts(), on_dropped)

    def sample(
        self,
        pipeline: SamplingPipeline,
        logits: Any,
        lines: Sequence[int],
        rows: Rows,
        contexts: Sequence[RowContext] | None,
    ) -> StepResult | None:
        """Selects a token for each of *lines*. Arguments as for :class:`LogitsAccess`."""
        if isinstance(logits, np.ndarray):
            taken = logits if len(lines) == len(logits) else logits[list(lines)]
        else:
            selector: Any = pipeline.selector
            taken = selector.taken(logits, lines)
        plan = pipeline.prepare(taken, rows)
        return pipeline.complete(plan, contexts) if plan.lines.size else None

    def force(self, logits: Any, lines: Sequence[int], token_ids: Sequence[int]) -> None:
        """Does nothing: the loop is told its tokens."""


def health_tests() -> Callable[[HealthPolicy], HealthMonitor]:
    """Returns what makes the health tests of a source, compiled ones where they are installed."""
    if find_spec("qr_sampler_accel") is None:
        return HealthMonitor
    from qr_sampler_accel import health_monitor

    return health_monitor
