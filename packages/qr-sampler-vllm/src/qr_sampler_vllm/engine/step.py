# SPDX-License-Identifier: Apache-2.0
"""One sampling step on vLLM's logits tensor: measure, draw, select, force."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from qr_sampler import (
    BlockCounts,
    DroppedBytes,
    EntropySource,
    FastSelector,
    RowContext,
    Rows,
    SamplingPipeline,
    Selector,
    Settings,
    StepResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qr_sampler.arrays import ByteBlocks

__all__ = [
    "force_on_device",
    "force_tokens",
    "get_ready",
    "pipeline_for",
    "sample_rows",
    "selector_for",
]


def get_ready(device_type: str) -> None:
    """Does ahead of the first step what would delay it.

    Args:
        device_type: Where the logits will be, as ``torch.device.type``.
    """
    if _has_compiler():
        from qr_sampler_accel.host.warm_up import warm_up

        warm_up(logits_on_host=device_type == "cpu")


def pipeline_for(
    logits: Any,
    settings: Settings,
    source: EntropySource,
    selector: Selector[Any, Any] | None = None,
    on_dropped: Callable[[DroppedBytes], object] | None = None,
) -> SamplingPipeline:
    """Returns the pipeline that is fastest where the tensor *logits* is.

    Args:
        logits: A tensor on the device of all that follow.
        settings: The deployment's settings.
        source: Where the bytes come from.
        selector: What selects the tokens; by default :func:`selector_for` decides.
        on_dropped: Is told of bytes that decide nothing, because an amplifier fails.
    """
    chosen = selector or selector_for(logits)
    return SamplingPipeline(settings, source, chosen, _counter(), on_dropped)


def selector_for(logits: Any, most_rows: int | None = None) -> Selector[Any, Any]:
    """Returns the selector that works where the tensor *logits* is.

    Both select the same tokens. In the memory of the host rows are worked on one by one, where they
    lie; on an accelerator all of them at once, and only a few numbers per row leave it.

    Args:
        logits: A tensor on the device of all that follow.
        most_rows: Largest number of rows, for which an accelerator's memory is taken now.
    """
    if logits.device.type == "cpu":
        if not _has_compiler():
            return FastSelector()
        from qr_sampler_accel.host.passes import CompiledPasses

        return FastSelector(CompiledPasses)
    from qr_sampler_accel.device.selector import TorchSelector

    selector = TorchSelector()
    if most_rows is not None:
        selector.reserve(most_rows, logits.shape[1], logits.device)
    return selector


def _counter() -> Callable[[ByteBlocks], BlockCounts]:
    """Returns what counts the bytes of blocks, which are in the memory of the host."""
    if not _has_compiler():
        return BlockCounts
    from qr_sampler_accel.host.byte_counts import CompiledCounts

    return CompiledCounts


def _has_compiler() -> bool:
    """Whether Numba is there. vLLM brings it on most platforms; NumPy does the same without."""
    return find_spec("numba") is not None


def sample_rows(
    pipeline: SamplingPipeline,
    logits: Any,
    lines: Sequence[int],
    rows: Rows,
    contexts: Sequence[RowContext] | None = None,
) -> StepResult | None:
    """Selects a token for each of *lines* and forces it in place.

    On an accelerator this waits until the logits have been computed; the request for entropy is
    made after that.

    Args:
        pipeline: Selects the tokens, with what :func:`selector_for` returns for *logits*.
        logits: Tensor of shape ``(R, V)``, modified in place.
        lines: The L rows to decide; the others are left untouched.
        rows: Parameters of the L rows, in the order of *lines*.
        contexts: Which tokens they are, for a source that takes a commitment.

    Returns:
        The step, or ``None`` when none of the rows can be decided; those are left untouched.

    Raises:
        EntropyUnavailableError: When the source cannot deliver.
        ComponentError: When an amplifier or a temperature strategy fails.
    """
    on_host = logits.device.type == "cpu"
    if on_host:
        plan = pipeline.prepare(_float32_rows(logits, lines).numpy(), rows)
    else:
        selector: Any = pipeline.selector
        plan = pipeline.prepare(selector.taken(logits, lines), rows)
    if not plan.lines.size:
        return None
    result = pipeline.complete(plan, contexts)
    decided = [lines[line] for line in plan.lines]
    if on_host:
        force_tokens(logits, decided, result.selection.token_ids.tolist())
    else:
        result.selection.force(logits, decided)  # type: ignore[attr-defined]
    return result


def force_tokens(logits: Any, lines: Sequence[int], token_ids: Sequence[int]) -> None:
    """Sets each of *lines* to 0 at its token and to -inf elsewhere, in place.

    Args:
        logits: Tensor of shape ``(R, V)``.
        lines: The D rows to overwrite.
        token_ids: The D tokens.
    """
    import torch

    if logits.device.type != "cpu":
        force_on_device(logits, lines, token_ids)
        return
    # NumPy addresses single rows faster, but does not know bfloat16.
    rows = logits.numpy() if logits.dtype == torch.float32 else logits
    for line, token_id in zip(lines, token_ids, strict=True):
        rows[line] = -math.inf
        rows[line, token_id] = 0.0


def force_on_device(logits: Any, lines: Sequence[int], token_ids: Sequence[int]) -> None:
    """Does the same as :func:`force_tokens` in the memory of any device."""
    import torch

    rows = torch.as_tensor(lines, device=logits.device)
    logits[rows] = -math.inf
    logits[rows, torch.as_tensor(token_ids, device=logits.device)] = 0.0


def _float32_rows(logits: Any, lines: Sequence[int]) -> Any:
    """Returns *lines* as float32 with consecutive columns, if possible without a copy."""
    import torch

    if list(lines) != list(range(len(logits))):
        logits = logits[torch.as_tensor(lines)]
    return logits.to(dtype=torch.float32).contiguous()
