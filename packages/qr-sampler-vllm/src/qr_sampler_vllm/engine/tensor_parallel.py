# SPDX-License-Identifier: Apache-2.0
"""One choice for all ranks of a tensor-parallel group.

Under tensor parallelism every rank samples the whole batch by itself, and vLLM does not compare the
results: ranks that chose different tokens would continue with different texts. So the first rank
draws and chooses, the others force its choice, and only the first keeps records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Protocol

__all__ = ["Group", "TensorParallelGroup", "force_where_told"]

NO_TOKEN: Final = -1
"""Marks a row that is left to vLLM."""


class Group(Protocol):
    """What is used of vLLM's ``GroupCoordinator``."""

    rank_in_group: int
    """The rank of this process, counted from 0."""
    world_size: int
    """Number of ranks."""

    def broadcast(self, input_: Any, src: int = 0) -> Any:
        """Overwrites the tensor *input_* with that of the rank *src*; all ranks have to call it."""


class TensorParallelGroup:
    """The ranks that have to force the same tokens.

    Every rank calls :meth:`tell` or :meth:`hear` once per step, even if the step fails;
    otherwise the others would wait forever.

    Args:
        group: vLLM's group of these ranks.
    """

    def __init__(self, group: Group) -> None:
        self._group = group

    @property
    def leads(self) -> bool:
        """Whether this rank draws and chooses for all ranks."""
        return self._group.rank_in_group == 0

    def tell(self, logits: Any, tokens: Mapping[int, int]) -> None:
        """Tells the other ranks which tokens this one has forced.

        Args:
            logits: Tensor of shape ``(R, V)``; gives the device of the ranks and the number of
                rows.
            tokens: The forced tokens by row.
        """
        import torch

        chosen = torch.full((len(logits),), NO_TOKEN, dtype=torch.int64)
        for line, token_id in tokens.items():
            chosen[line] = token_id
        self._group.broadcast(chosen.to(logits.device), src=0)

    def hear(self, logits: Any) -> None:
        """Forces in *logits*, in place, what the first rank has forced. Shape ``(R, V)``."""
        import torch

        chosen = torch.empty((len(logits),), dtype=torch.int64, device=logits.device)
        self._group.broadcast(chosen, src=0)
        force_where_told(logits, chosen)


def force_where_told(logits: Any, told: Any) -> None:
    """Sets each row to 0 at its token and to -inf elsewhere, in place, and waits for no device.

    Args:
        logits: Tensor of shape ``(R, V)``.
        told: Shape ``(R,)``, int64 on the same device; a negative number leaves the row alone.
    """
    import torch

    forced = (told >= 0)[:, None]
    column = told.clamp(min=0)[:, None]
    value = torch.where(forced, 0.0, logits.gather(1, column).to(torch.float32))
    logits.masked_fill_(forced, -math.inf)
    logits.scatter_(1, column, value.to(logits.dtype))
