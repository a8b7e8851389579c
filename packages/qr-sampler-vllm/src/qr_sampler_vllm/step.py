# SPDX-License-Identifier: Apache-2.0
"""One sampling step on vLLM's logits tensor: wait, draw, select, force."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from qr_sampler import Rows, SamplingPipeline, StepResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["force_tokens", "sample_rows"]

logger = logging.getLogger("qr_sampler.vllm")


def sample_rows(
    pipeline: SamplingPipeline, logits: Any, lines: Sequence[int], rows: Rows
) -> StepResult | None:
    """Selects a token for each of *lines* and forces it in place.

    Copying the logits to the host waits until the device has computed them, and the request for
    entropy is made after that.

    Args:
        pipeline: Selects the tokens.
        logits: Tensor of shape ``(R, V)``, modified in place.
        lines: The L rows to decide; the others are left untouched.
        rows: Parameters of the L rows, in the order of *lines*.

    Returns:
        The step, or ``None`` when none of the rows can be decided.

    Raises:
        EntropyUnavailableError: When the source fails and the operator chose to stop then.
    """
    import torch

    index = torch.as_tensor(lines, device=logits.device)
    host = logits.index_select(0, index).to(device="cpu", dtype=torch.float32).numpy()
    plan = pipeline.prepare(host, rows, logits_ready_ns=time.monotonic_ns())
    if plan.lines.size < len(lines):
        _report_undecidable(len(lines) - plan.lines.size)
    if not plan.lines.size:
        return None
    result = pipeline.complete(plan)
    force_tokens(logits, [lines[line] for line in plan.lines], result.selection.token_ids)
    return result


def force_tokens(logits: Any, lines: Sequence[int], token_ids: NDArray[np.intp]) -> None:
    """Sets each of *lines* to 0 at its token and to -inf elsewhere, in place.

    Args:
        logits: Tensor of shape ``(R, V)``.
        lines: The D rows to overwrite.
        token_ids: Shape ``(D,)``.
    """
    import torch

    index = torch.as_tensor(lines, device=logits.device)
    tokens = torch.as_tensor(token_ids, device=logits.device)
    logits.index_fill_(0, index, -torch.inf)
    logits[index, tokens] = 0.0


def _report_undecidable(count: int) -> None:
    logger.error(
        "%d rows of logits have no finite maximum (all tokens masked, or NaN); they are left to "
        "vLLM and have no record. Check the model and the constraints of the request.",
        count,
    )
