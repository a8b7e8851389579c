# SPDX-License-Identifier: Apache-2.0
"""Small numbers on their way to the device and back, through pinned memory where there is any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qr_sampler._typing import FloatArray

__all__ = ["Download", "Upload"]


class Upload:
    """Sends columns of numbers to a device without waiting for it.

    The host side is written again by the next :meth:`send`. Whoever calls it makes sure that the
    device has reached the copy before, by having waited for something that was launched later.

    Args:
        size: Largest number of values.
        device: Where they go.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._host = torch.empty(size, dtype=torch.float64, pin_memory=device.type == "cuda")
        self._device = torch.empty(size, dtype=torch.float64, device=device)

    def send(self, columns: Sequence[FloatArray]) -> torch.Tensor:
        """Returns *columns* on the device, valid until the next call.

        Args:
            columns: N arrays of shape ``(D,)``, stored as float64.

        Returns:
            Shape ``(N, D)``, float64.
        """
        values = np.stack(columns)
        host, target = (tensor[: values.size] for tensor in (self._host, self._device))
        host.numpy()[...] = values.reshape(-1)
        return target.copy_(host, non_blocking=True).view(values.shape)


class Download:
    """Receives a block of numbers from a device.

    Args:
        size: Largest number of values.
        device: Where they come from.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._host = torch.empty(size, dtype=torch.float64, pin_memory=cuda)
        event: Any = torch.cuda.Event
        self._event = event() if cuda else None
        self._shape: tuple[int, ...] = (0,)

    def start(self, values: torch.Tensor) -> None:
        """Launches the copy and returns at once.

        Args:
            values: Float64, contiguous.
        """
        self._shape = tuple(values.shape)
        self._host[: values.numel()].copy_(values.view(-1), non_blocking=True)
        if self._event is not None:
            self._event.record()

    def wait(self) -> FloatArray:
        """Returns the values, in memory of their own, when the device has computed them."""
        if self._event is not None:
            self._event.synchronize()
        size = int(np.prod(self._shape))
        values: FloatArray = self._host[:size].numpy().reshape(self._shape).copy()
        return values
