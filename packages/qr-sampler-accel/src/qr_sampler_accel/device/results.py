# SPDX-License-Identifier: Apache-2.0
"""The outcome of a selection on a device, copied to the host when somebody reads it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qr_sampler import SelectionResult
from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler_accel.device.rows import EngineRows
from qr_sampler_accel.device.transfer import Download

__all__ = ["TorchSelectionResult"]


class TorchSelectionResult(SelectionResult):
    """A selection whose arrays are on their way to the host.

    All four arrive in one copy, which is under way. Reading any of them for the first time waits
    for it; :meth:`force` does not.

    Args:
        device_token_ids: Shape ``(D,)``, int64, the tokens on the device, until the next step.
        download: Brings token ids, ranks, probabilities and numbers of candidates.
        engine_rows: Forces rows.
    """

    __slots__ = ("_download", "_engine_rows", "_values", "device_token_ids")

    device_token_ids: torch.Tensor
    _download: Download
    _engine_rows: EngineRows
    _values: FloatArray | None

    def __init__(
        self, device_token_ids: torch.Tensor, download: Download, engine_rows: EngineRows
    ) -> None:
        # The fields of the frozen base are properties here.
        object.__setattr__(self, "device_token_ids", device_token_ids)
        object.__setattr__(self, "_download", download)
        object.__setattr__(self, "_engine_rows", engine_rows)
        object.__setattr__(self, "_values", None)

    def fetch(self) -> FloatArray:
        """Returns the four arrays in one of shape ``(4, D)``; waits for the device once."""
        values = self._values
        if values is None:
            values = self._download.wait()
            object.__setattr__(self, "_values", values)
        return values

    def force(self, logits: torch.Tensor, lines: Sequence[int]) -> None:
        """Sets each of *lines* to 0 at its token and to -inf elsewhere, in place.

        Only launches work. To be called before the next step.

        Args:
            logits: Tensor of shape ``(R, V)`` on the device of the selection.
            lines: The D rows to overwrite, in the order of the result.
        """
        self._engine_rows.force(logits, lines, self.device_token_ids)

    @property
    def token_ids(self) -> IndexArray:
        """Shape ``(D,)``."""
        return self._whole(0)

    @property
    def rank(self) -> IndexArray:
        """Shape ``(D,)``, 0 for the most probable token."""
        return self._whole(1)

    @property
    def probability(self) -> FloatArray:
        """Shape ``(D,)``, of the token after temperature and truncation, in (0, 1]."""
        probability: FloatArray = self.fetch()[2]
        return probability

    @property
    def candidates(self) -> IndexArray:
        """Shape ``(D,)``, number of tokens that truncation kept; V where nothing truncates."""
        return self._whole(3)

    def _whole(self, row: int) -> IndexArray:
        numbers: IndexArray = self.fetch()[row].astype(np.intp)
        return numbers
