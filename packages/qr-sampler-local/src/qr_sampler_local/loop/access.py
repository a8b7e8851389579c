# SPDX-License-Identifier: Apache-2.0
"""How a session reads the logits of a loop, which stay as they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
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

__all__ = ["ReadLogits", "has_accel", "health_tests", "warm_up"]

logger = logging.getLogger("qr_sampler.local")


class ReadLogits:
    """Logits that are read and never written to; :func:`readable` has made them."""

    def __init__(self) -> None:
        self._tensors: Any = None
        """Reads tensors of an accelerator; made for the first of them."""

    def pipeline(
        self,
        logits: Any,
        settings: Settings,
        source: EntropySource,
        on_dropped: Callable[[DroppedBytes], object],
    ) -> SamplingPipeline:
        """Returns the pipeline that is fastest where *logits* are."""
        if not has_accel():
            return SamplingPipeline(settings, source, on_dropped=on_dropped)
        from qr_sampler_accel import TensorLogits, block_counts, host_selector

        if isinstance(logits, np.ndarray):
            return SamplingPipeline(settings, source, host_selector(), block_counts(), on_dropped)
        self._tensors = self._tensors or TensorLogits(forces=False)
        pipeline: SamplingPipeline = self._tensors.pipeline(logits, settings, source, on_dropped)
        return pipeline

    def sample(
        self,
        pipeline: SamplingPipeline,
        logits: Any,
        lines: Sequence[int],
        rows: Rows,
        contexts: Sequence[RowContext] | None,
    ) -> StepResult | None:
        """Selects a token for each of *lines*. Arguments and errors as for ``LogitsAccess``."""
        if not isinstance(logits, np.ndarray):
            step: StepResult | None = self._tensors.sample(pipeline, logits, lines, rows, contexts)
            return step
        # All of them are in order.
        taken = logits if len(lines) == len(logits) else logits[list(lines)]
        plan = pipeline.prepare(taken, rows)
        return pipeline.complete(plan, contexts) if plan.lines.size else None

    def force(self, logits: Any, lines: Sequence[int], token_ids: Sequence[int]) -> None:
        """Does nothing: the loop is told its tokens."""


@lru_cache(maxsize=1)
def has_accel() -> bool:
    """Whether the package of the fast selectors is installed."""
    return find_spec("qr_sampler_accel") is not None


def health_tests() -> Callable[[HealthPolicy], HealthMonitor]:
    """Returns what makes the health tests of a source, compiled ones where they are installed."""
    if not has_accel():
        return HealthMonitor
    from qr_sampler_accel import health_monitor

    return health_monitor


@lru_cache(maxsize=1)
def warm_up() -> None:
    """Compiles what steps run, once in a process, so that no token waits for the compiler."""
    if not has_accel():
        return
    from qr_sampler_accel import has_compiler
    from qr_sampler_accel import warm_up as compile_loops

    if has_compiler():
        logger.info("compiling the loops of a step; the first time takes some twenty seconds")
        compile_loops(logits_on_host=True)
