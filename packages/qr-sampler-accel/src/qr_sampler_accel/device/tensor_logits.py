# SPDX-License-Identifier: Apache-2.0
"""How a session reads and forces the logits of an engine that keeps them in a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from qr_sampler import (
    DroppedBytes,
    EntropySource,
    RowContext,
    Rows,
    SamplingPipeline,
    Selector,
    Settings,
    StepPlan,
    StepPlanner,
    StepResult,
)
from qr_sampler.arrays import Logits
from qr_sampler_accel.factories import block_counts, device_selector, host_selector

__all__ = ["TensorLogits", "force_together"]


class TensorLogits:
    """Logits in a tensor; their tokens are selected on the device that holds them.

    Args:
        most_rows: Largest number of rows of a step. An accelerator's memory is taken for that many
            in the first step; without it, for each step what it needs.
        forces: Whether tokens are forced in the rows; a host that is told them leaves the rows as
            they are.
    """

    def __init__(self, most_rows: int | None = None, *, forces: bool = True) -> None:
        self._most_rows = most_rows
        self._forces = forces

    def pipeline(
        self,
        logits: Any,
        settings: Settings,
        source: EntropySource,
        on_dropped: Callable[[DroppedBytes], object] | None = None,
    ) -> SamplingPipeline:
        """Returns the pipeline that is fastest where *logits* are."""
        return SamplingPipeline(
            settings, source, self._selector(logits), block_counts(), on_dropped
        )

    def planner(self, logits: Any) -> StepPlanner:
        """Returns a planner with the selector that is fastest where *logits* are."""
        return StepPlanner(self._selector(logits))

    def plan(self, planner: StepPlanner, logits: Any, lines: Sequence[int], rows: Rows) -> StepPlan:
        """Returns everything about *lines* that can be computed before the entropy is drawn.

        On an accelerator this waits until the logits have been computed.

        Args:
            planner: What :meth:`planner` returned, or that of a pipeline.
            logits: Tensor of shape ``(R, V)``, unchanged as long as the plan is used.
            lines: The L rows.
            rows: Their parameters.
        """
        on_host = logits.device.type == "cpu"
        selector: Any = planner.selector
        taken = _on_host(logits, lines) if on_host else selector.taken(logits, lines)
        return planner.prepare(taken, rows)

    def sample(
        self,
        pipeline: SamplingPipeline,
        logits: Any,
        lines: Sequence[int],
        rows: Rows,
        contexts: Sequence[RowContext] | None = None,
    ) -> StepResult | None:
        """Selects a token for each of *lines* and forces it in place, if it is to be forced.

        On an accelerator this waits until the logits have been computed; the request for entropy is
        made after that.
        """
        plan = self.plan(pipeline.planner, logits, lines, rows)
        if not plan.lines.size:
            return None
        result = pipeline.complete(plan, contexts)
        if not self._forces:
            return result
        decided = [lines[line] for line in plan.lines.tolist()]
        if logits.device.type == "cpu":
            self.force(logits, decided, result.selection.token_ids.tolist())
        else:
            result.selection.force(logits, decided)  # type: ignore[attr-defined]
        return result

    def force(self, logits: Any, lines: Sequence[int], token_ids: Sequence[int]) -> None:
        """Sets each of *lines* to 0 at its token and to -inf elsewhere, unless forbidden."""
        if not self._forces:
            return
        if logits.device.type == "cpu":
            # NumPy addresses single rows faster, but does not know bfloat16.
            rows = logits.numpy() if logits.dtype is _float32() else logits
            for line, token_id in zip(lines, token_ids, strict=True):
                rows[line] = -math.inf
                rows[line, token_id] = 0.0
        else:
            force_together(logits, lines, token_ids)

    def _selector(self, logits: Any) -> Selector[Any, Any]:
        """Returns the selector of the device that holds *logits*; all select the same tokens."""
        if logits.device.type == "cpu":
            return host_selector()
        selector = device_selector()
        if self._most_rows is not None:
            selector.reserve(self._most_rows, logits.shape[1], logits.device)
        return selector


@lru_cache(maxsize=1)
def _float32() -> Any:
    # The import of the package needs none.
    import torch

    return torch.float32


def _on_host(logits: Any, lines: Sequence[int]) -> Logits:
    """Returns *lines* as an array of float32, if possible without a copy."""
    if len(lines) != logits.shape[0] or list(lines) != list(range(len(lines))):
        logits = logits[list(lines)]
    rows: Logits = logits.to(_float32()).numpy()
    return rows


def force_together(logits: Any, lines: Sequence[int], token_ids: Sequence[int]) -> None:
    """Sets each of *lines* to 0 at its token and to -inf elsewhere, in place and all at once.

    An accelerator does that faster than row by row.

    Args:
        logits: Tensor of shape ``(R, V)``.
        lines: The rows.
        token_ids: Their tokens.
    """
    import torch

    rows = torch.as_tensor(lines, device=logits.device)
    logits[rows] = -math.inf
    logits[rows, torch.as_tensor(token_ids, device=logits.device)] = 0.0
