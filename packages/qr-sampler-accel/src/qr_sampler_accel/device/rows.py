# SPDX-License-Identifier: Apache-2.0
"""The engine's tensor of logits: rows that are taken from it, and rows that are forced in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qr_sampler_accel.device.transfer import Upload

__all__ = ["EngineRows"]


class EngineRows:
    """Takes rows and forces rows on one device, in memory that is kept from step to step.

    Args:
        rows: Largest number of rows.
        device: Where the logits are.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.rows, self.device = rows, device
        self._lines = Upload(rows, device)
        self._taken: dict[torch.dtype, torch.Tensor] = {}
        self._zeros = {torch.float32: torch.zeros((), device=device)}

    def taken(self, logits: torch.Tensor, lines: Sequence[int]) -> torch.Tensor:
        """Returns *lines* as float32 with consecutive columns, if possible without a copy.

        Args:
            logits: Shape ``(R, V)``.
            lines: The L rows to take.

        Returns:
            Shape ``(L, V)``, valid until the next call.
        """
        if not _is_all(lines, logits):
            index = self._lines.send(np.array(lines, dtype=np.int64))
            part = self._memory(len(lines), logits.shape[1], logits.dtype)
            logits = torch.index_select(logits, 0, index, out=part)
        if logits.dtype != torch.float32 or logits.stride(1) != 1:
            rows, columns = logits.shape
            logits = self._memory(rows, columns, torch.float32).copy_(logits)
        return logits

    def force(self, logits: torch.Tensor, lines: Sequence[int], token_ids: torch.Tensor) -> None:
        """Sets each of *lines* to 0 at its token and to -inf elsewhere, in place.

        Only launches work.

        Args:
            logits: Shape ``(R, V)``.
            lines: The D rows to overwrite.
            token_ids: Shape ``(D,)``, int64 on the device.
        """
        if _is_all(lines, logits):
            logits.fill_(-torch.inf).scatter_(1, token_ids[:, None], 0.0)
            return
        index = self._lines.send(np.array(lines, dtype=np.int64))
        logits.index_fill_(0, index, -torch.inf)
        logits.index_put_((index, token_ids), self._zero(logits.dtype))

    def _memory(self, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        found = self._taken.get(dtype)
        if found is None or found.shape[1] != columns:
            shape = (self.rows, columns)
            found = self._taken[dtype] = torch.empty(shape, dtype=dtype, device=self.device)
        return found[:rows]

    def _zero(self, dtype: torch.dtype) -> torch.Tensor:
        if dtype not in self._zeros:
            self._zeros[dtype] = torch.zeros((), dtype=dtype, device=self.device)
        return self._zeros[dtype]


def _is_all(lines: Sequence[int], logits: torch.Tensor) -> bool:
    return len(lines) == len(logits) and list(lines) == list(range(len(lines)))
