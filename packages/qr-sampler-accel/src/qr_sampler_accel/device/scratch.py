# SPDX-License-Identifier: Apache-2.0
"""Memory for the small tensors of a step, kept so that the next step allocates nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

__all__ = ["Scratch"]


@dataclass(slots=True)
class _Pool:
    """The tensors of one type."""

    whole: list[torch.Tensor] = field(default_factory=list)
    """As large as they were allocated."""
    parts: list[torch.Tensor] = field(default_factory=list)
    """Their leading entries, as they were handed out last."""
    used: int = 0
    """How many of them are in use."""


class Scratch:
    """Hands out tensors with one number per row, the same ones step after step.

    A step asks for as many as it needs and gives none of them back by itself. Work on a device is
    done in the order of its launch, so memory may be handed out again while it is still in use.

    Args:
        rows: Largest number of rows.
        device: Where the memory lies.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self._rows, self._device = rows, device
        self._count = rows
        self._pools: dict[torch.dtype, _Pool] = {}

    def restart(self, count: int) -> None:
        """Takes everything back; from now on tensors have *count* entries."""
        self._count = count
        for pool in self._pools.values():
            pool.used = 0

    def mark(self) -> dict[torch.dtype, int]:
        """Returns how much is in use, for :meth:`rewind`."""
        return {dtype: pool.used for dtype, pool in self._pools.items()}

    def rewind(self, mark: dict[torch.dtype, int]) -> None:
        """Takes back what was handed out since *mark* was made."""
        for dtype, pool in self._pools.items():
            pool.used = mark.get(dtype, 0)

    def take(self, dtype: torch.dtype) -> torch.Tensor:
        """Returns a tensor of one dimension with any content."""
        pool = self._pools.get(dtype)
        if pool is None:
            pool = self._pools[dtype] = _Pool()
        place = pool.used
        pool.used += 1
        if place == len(pool.whole):
            whole = torch.empty(self._rows, dtype=dtype, device=self._device)
            pool.whole.append(whole)
            pool.parts.append(whole[: self._count])
        elif len(pool.parts[place]) != self._count:
            pool.parts[place] = pool.whole[place][: self._count]
        return pool.parts[place]

    def floats(self) -> torch.Tensor:
        """Returns a float64 tensor."""
        return self.take(torch.float64)

    def integers(self) -> torch.Tensor:
        """Returns an int64 tensor."""
        return self.take(torch.int64)

    def flags(self) -> torch.Tensor:
        """Returns a tensor of truth values."""
        return self.take(torch.bool)
