# SPDX-License-Identifier: Apache-2.0
"""Repetition, frequency and presence penalties, applied before the token is chosen.

Model Runner V1 applies them after its logits processors, once the token has been chosen: too late.
So vLLM's own operation is applied here, beforehand. When vLLM applies it again, the row stays
one-hot: the chosen token stays finite and the others stay at -inf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qr_sampler import ConfigError

__all__ = ["Penalties", "apply_penalties", "check_penalties", "distinct_tokens"]

TokenArray: TypeAlias = NDArray[np.int64]
"""Token ids."""

REPETITION_LIMIT: Final = 2.0**64
"""Largest factor, and largest divisor, of a repetition penalty."""


@dataclass(frozen=True, slots=True)
class Penalties:
    """The penalties of one request, as in vLLM's ``SamplingParams``."""

    repetition: float
    """Positive logits of tokens in the prompt or the output are divided by it, others multiplied;
    1 is neutral."""
    frequency: float
    """Subtracted from the logit of a token once for each time it is in the output; 0 is neutral."""
    presence: float
    """Subtracted from the logits of the tokens that are in the output; 0 is neutral."""

    @classmethod
    def of(cls, sampling_params: Any) -> Penalties | None:
        """Returns the penalties of a request, or ``None`` if all are neutral.

        Args:
            sampling_params: vLLM's ``SamplingParams``.
        """
        penalties = cls(
            repetition=sampling_params.repetition_penalty,
            frequency=sampling_params.frequency_penalty,
            presence=sampling_params.presence_penalty,
        )
        return None if penalties == cls(1.0, 0.0, 0.0) else penalties


def check_penalties(sampling_params: Any) -> None:
    """Refuses a repetition penalty that would turn logits into NaN.

    vLLM accepts every positive value. In float32 a very small one becomes 0 and a very large one
    infinite, and 0 * -inf makes vLLM emit a token other than the forced one.

    Args:
        sampling_params: vLLM's ``SamplingParams``.

    Raises:
        ConfigError: Naming the field, its value and the range.
    """
    repetition = sampling_params.repetition_penalty
    if not 1.0 / REPETITION_LIMIT <= repetition <= REPETITION_LIMIT:
        raise ConfigError(
            f"repetition_penalty={repetition} is too extreme to scale float32 logits by; use "
            f"a value from {1.0 / REPETITION_LIMIT:.1e} to {REPETITION_LIMIT:.1e}"
        )


def distinct_tokens(prompt: Sequence[int] | None) -> TokenArray:
    """Returns the distinct tokens of a prompt, which is all that penalties depend on.

    Args:
        prompt: Token ids, or ``None`` for a prompt of embeddings, in which there are none.

    Returns:
        Shape ``(D,)``, int64, ascending.
    """
    return np.unique(np.asarray(() if prompt is None else prompt, dtype=np.int64))


def apply_penalties(
    logits: Any,
    lines: Sequence[int],
    penalties: Sequence[Penalties],
    prompts: Sequence[Sequence[int] | TokenArray | None],
    outputs: Sequence[Sequence[int]],
) -> None:
    """Applies the penalties of L rows with vLLM's own operation, in place.

    On an accelerator the work is only launched. The result is vLLM's to the last bit, but for a
    repetition penalty on some of the rows of logits that lie in an accelerator's memory with gaps
    between them: there vLLM multiplies by the reciprocal instead of dividing.

    Args:
        logits: Tensor of shape ``(R, V)`` of any floating type; calculated with as float32. Other
            rows are left untouched.
        lines: The L rows: at least one, and none twice.
        penalties: The penalties of each.
        prompts: The prompt of each, or its :func:`distinct_tokens`, which saves work over
            many steps. ``None``, for a prompt of embeddings, holds no token to penalise.
        outputs: The tokens that each has generated so far. Ids outside of ``[0, V)`` stand for
            unknown tokens and are ignored.
    """
    from vllm.model_executor.layers.utils import apply_penalties as vllm_apply_penalties

    vocab_size = logits.shape[1]
    whole = list(lines) == list(range(len(logits)))
    index = None if whole else _on_device(np.array(lines, dtype=np.int64), logits)
    rows = (logits if index is None else logits[index]).float()
    # Only the repetition penalty looks at prompts, which may be long.
    relevant = prompts if any(each.repetition != 1.0 for each in penalties) else [()] * len(prompts)
    vllm_apply_penalties(
        rows,
        _on_device(_padded(relevant, vocab_size), logits),
        _on_device(_padded(outputs, vocab_size), logits),
        *_on_device(_columns(penalties), logits),
    )
    if index is not None:
        logits[index] = rows.to(logits.dtype)
    elif rows is not logits:
        logits.copy_(rows)


def _columns(penalties: Sequence[Penalties]) -> NDArray[np.float32]:
    """Returns presence, frequency and repetition penalties, shape ``(3, L)``, float32."""
    columns = zip(*((p.presence, p.frequency, p.repetition) for p in penalties), strict=True)
    return np.array(list(columns), dtype=np.float32)


def _padded(rows: Sequence[Sequence[int] | TokenArray | None], vocab_size: int) -> TokenArray:
    """Returns tokens in the layout of vLLM's operation: padded with ``vocab_size``, no token.

    Returns:
        Shape ``(L, T)``, int64, where T is the largest number of tokens in a row.
    """
    known = [() if row is None else row for row in rows]
    padded = np.full((len(known), max(map(len, known))), vocab_size, dtype=np.int64)
    for target, row in zip(padded, known, strict=True):
        target[: len(row)] = row
    padded[(padded < 0) | (padded > vocab_size)] = vocab_size
    return padded


def _on_device(values: NDArray[Any], logits: Any) -> Any:
    """Returns an array as a tensor on the device of *logits*, without waiting for the device."""
    import torch

    tensor = torch.from_numpy(values)
    if logits.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(logits.device, non_blocking=True)
