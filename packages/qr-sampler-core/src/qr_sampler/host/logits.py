# SPDX-License-Identifier: Apache-2.0
"""How a session reads and forces logits, in whatever memory a host keeps them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.entropy.source import EntropySource
from qr_sampler.rows import Rows
from qr_sampler.sampling.commitment import RowContext
from qr_sampler.sampling.pipeline import SamplingPipeline, StepResult
from qr_sampler.sampling.planner import StepPlan, StepPlanner
from qr_sampler.settings import Settings

__all__ = ["LogitsAccess", "NumpyLogits", "defect_of"]

logger = logging.getLogger("qr_sampler.host")


class LogitsAccess(Protocol):
    """What a session does with the logits of a step: an array or tensor of shape ``(R, V)``."""

    def pipeline(
        self,
        logits: Any,
        settings: Settings,
        source: EntropySource,
        on_dropped: Callable[[DroppedBytes], object],
    ) -> SamplingPipeline:
        """Returns the pipeline of one source; called in the first step that draws from it.

        Args:
            logits: The logits of this step, which show their device.
            settings: The deployment's settings.
            source: Where the bytes come from.
            on_dropped: Called with bytes that decide nothing because an amplifier fails.
        """

    def sample(
        self,
        pipeline: SamplingPipeline,
        logits: Any,
        lines: Sequence[int],
        rows: Rows,
        contexts: Sequence[RowContext] | None,
    ) -> StepResult | None:
        """Selects a token for each of *lines* and forces it in place.

        Args:
            pipeline: What :meth:`pipeline` returned.
            logits: Modified in place.
            lines: The L rows to decide; the others are left untouched.
            rows: Parameters of the L rows, in the order of *lines*.
            contexts: Which tokens they are, for a source that takes a commitment.

        Returns:
            The step, or ``None`` when none of the rows can be decided; those are left untouched.

        Raises:
            EntropyUnavailableError: When the source cannot deliver.
            ComponentError: When an amplifier or a temperature strategy fails.
        """

    def force(self, logits: Any, lines: Sequence[int], token_ids: Sequence[int]) -> None:
        """Sets each of *lines* to 0 at its token and to -inf elsewhere, in place."""


class NumpyLogits:
    """Logits in an array of float32, selected with NumPy alone."""

    def pipeline(
        self,
        logits: Any,
        settings: Settings,
        source: EntropySource,
        on_dropped: Callable[[DroppedBytes], object],
    ) -> SamplingPipeline:
        """Returns a pipeline with the selector of the host."""
        return SamplingPipeline(settings, source, on_dropped=on_dropped)

    def planner(self, logits: Any) -> StepPlanner:
        """Returns a planner with the selector of the host."""
        return StepPlanner()

    def plan(self, planner: StepPlanner, logits: Any, lines: Sequence[int], rows: Rows) -> StepPlan:
        """Returns everything about *lines* that can be computed before the entropy is drawn."""
        return planner.prepare(logits[list(lines)], rows)

    def sample(
        self,
        pipeline: SamplingPipeline,
        logits: Any,
        lines: Sequence[int],
        rows: Rows,
        contexts: Sequence[RowContext] | None,
    ) -> StepResult | None:
        """Selects a token for each of *lines* and forces it in place."""
        plan = self.plan(pipeline.planner, logits, lines, rows)
        if not plan.lines.size:
            return None
        result = pipeline.complete(plan, contexts)
        decided = [lines[line] for line in plan.lines]
        self.force(logits, decided, result.selection.token_ids.tolist())
        return result

    def force(self, logits: Any, lines: Sequence[int], token_ids: Sequence[int]) -> None:
        """Sets each of *lines* to 0 at its token and to -inf elsewhere, in place."""
        rows = list(lines)
        logits[rows] = -math.inf
        logits[rows, list(token_ids)] = 0.0


def defect_of(logits: Any, line: int) -> tuple[int, str]:
    """Returns the token that a row without a finite maximum gets, and what is wrong with the row.

    Args:
        logits: Array or tensor of shape ``(R, V)``.
        line: The row, which no pipeline can decide.

    Returns:
        The token is that of the largest logit, as greedy sampling takes it: the first in a row
        where all are masked, and the first NaN. What is wrong is as in
        :attr:`~qr_sampler.UndecidedRecord.reason`.
    """
    row = logits[line]
    # For NumPy and torch alike NaN is larger than every number.
    token_id = int(row.argmax())
    largest = float(row[token_id])
    defect = "nan" if math.isnan(largest) else "infinite" if largest > 0 else "masked"
    logger.error(
        "a row of logits has no finite maximum (%s), so that entropy cannot choose its token; "
        "check the constraints of the request, and the model",
        defect,
    )
    return token_id, defect
