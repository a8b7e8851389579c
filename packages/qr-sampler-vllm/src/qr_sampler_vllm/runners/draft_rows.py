# SPDX-License-Identifier: Apache-2.0
"""The rows of a step of Model Runner V2, in which a request also has a row for each draft token.

The rows of a request are consecutive: the first decides the token after its last one, the next the
token after the first draft, and so on. With all mass on one token, vLLM's rejection sampler accepts
a draft exactly when it equals the token forced in the row before, and then continues with the next
row. The rows after the first rejection decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from qr_sampler_vllm.engine.interfaces import LogitsContextLike

__all__ = ["LogitsRow", "rows_of"]


class LogitsRow(NamedTuple):
    """One row of the logits."""

    line: int
    """Its index."""
    slot: int
    """The slot of its request."""
    length: int
    """Number of tokens, prompt included, before the one that it decides."""
    draft: int | None
    """The token that it assumes was chosen in the row before, if it belongs to a draft; negative
    where there is no draft, which vLLM always rejects."""


def rows_of(context: LogitsContextLike, *, drafts: bool) -> Iterator[LogitsRow]:
    """Yields the rows of a step, those of one request in the order of their tokens.

    Args:
        context: vLLM's description of the step.
        drafts: Whether the engine speculates. In that case only the device knows the layout, and
            reading it waits until the logits have been computed.
    """
    if not drafts:
        slots = context.idx_mapping_np.tolist()
        lengths = context.seq_lens_upper_bound_np[: len(slots)].tolist()
        for line, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
            yield LogitsRow(line, slot, length, None)
        return
    for line, (slot, offset, position, token_id) in enumerate(_on_host(context)):
        yield LogitsRow(line, slot, position + 1, token_id if offset else None)


def _on_host(context: LogitsContextLike) -> list[list[int]]:
    """Returns slot, offset among the rows of its request, position and input token of each row."""
    import torch

    columns: tuple[Any, ...] = (
        context.expanded_idx_mapping,
        context.expanded_local_pos,
        context.pos,
        context.input_ids,
    )
    table = torch.stack([column.to(torch.int64) for column in columns], dim=1)
    rows: list[list[int]] = table.tolist()
    return rows
