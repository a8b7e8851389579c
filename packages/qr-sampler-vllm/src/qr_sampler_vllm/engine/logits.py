# SPDX-License-Identifier: Apache-2.0
"""How a session reads and forces vLLM's logits, which are a tensor on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qr_sampler import (
    DroppedBytes,
    EntropySource,
    RowContext,
    Rows,
    SamplingPipeline,
    Settings,
    StepResult,
)
from qr_sampler_vllm.engine.step import force_tokens, pipeline_for, sample_rows, selector_for

__all__ = ["TensorLogits"]


class TensorLogits:
    """Logits in a tensor; what selects their tokens works where they are.

    Args:
        most_rows: Largest number of rows of a step, for which an accelerator's memory is taken.
    """

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows

    def pipeline(
        self,
        logits: Any,
        settings: Settings,
        source: EntropySource,
        on_dropped: Callable[[DroppedBytes], object],
    ) -> SamplingPipeline:
        """Returns the pipeline that is fastest where *logits* are."""
        return pipeline_for(
            logits, settings, source, selector_for(logits, self._most_rows), on_dropped
        )

    def sample(
        self,
        pipeline: SamplingPipeline,
        logits: Any,
        lines: Sequence[int],
        rows: Rows,
        contexts: Sequence[RowContext] | None,
    ) -> StepResult | None:
        """Selects a token for each of *lines* and forces it in place."""
        return sample_rows(pipeline, logits, lines, rows, contexts)

    def force(self, logits: Any, lines: Sequence[int], token_ids: Sequence[int]) -> None:
        """Sets each of *lines* to 0 at its token and to -inf elsewhere, in place."""
        force_tokens(logits, lines, token_ids)
