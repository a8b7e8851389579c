# SPDX-License-Identifier: Apache-2.0
"""Small numbers on their way to the device and back, through pinned memory where there is any."""

from __future__ import annotations

import math
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from qr_sampler.arrays import FloatArray, IndexArray

__all__ = ["Download", "Event", "Upload", "event_on"]

HOST_BUFFERS: Final = 2
"""One can be on its way to the device while the next one is written."""


class Event(Protocol):
    """A mark in the work of a device."""

    def record(self) -> None:
        """Sets the mark behind everything that has been launched so far."""

    def synchronize(self) -> None:
        """Waits until the device has reached the mark; does not wait if it was never set."""


def event_on(device: torch.device) -> Event | None:
    """Returns a new mark, or ``None`` where work is done when its launch returns."""
    if device.type == "cpu":
        return None
    event: Event = torch.get_device_module(device).Event()
    return event


class Upload:
    """Sends numbers to a device without waiting for it; what it already has is not sent again.

    Args:
        size: Largest number of values.
        device: Where they go.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._hosts = [_host_memory(size, device) for _ in range(HOST_BUFFERS)]
        self._events = [event_on(device) for _ in range(HOST_BUFFERS)]
        self._device = torch.empty(size, dtype=torch.float64, device=device)
        self._turn = 0
        self._sent: NDArray[np.int64] | None = None
        self._arrived = self._device

    def send(self, values: FloatArray | IndexArray) -> torch.Tensor:
        """Returns *values* on the device, valid until the next call.

        Args:
            values: Of eight bytes each.

        Returns:
            Of the same shape; float64 for floating-point numbers, int64 for whole ones.
        """
        bits = np.ascontiguousarray(values).view(np.int64)
        if self._sent is None or not np.array_equal(bits, self._sent):
            self._arrived = self._copied(bits)
            self._sent = bits.copy()
        return self._arrived.view(torch.float64 if values.dtype.kind == "f" else torch.int64)

    def _copied(self, bits: NDArray[np.int64]) -> torch.Tensor:
        """Launches the copy of *bits* and returns where they arrive, as float64."""
        self._turn = (self._turn + 1) % HOST_BUFFERS
        host, event = self._hosts[self._turn][: bits.size], self._events[self._turn]
        if event is not None:
            # The copy before last has been reached long ago, unless a step was launched twice.
            event.synchronize()
        host.numpy().view(np.int64)[...] = bits.reshape(-1)
        target = self._device[: bits.size].copy_(host, non_blocking=True)
        if event is not None:
            event.record()
        return target.view(bits.shape)


class Download:
    """Receives a block of numbers from a device.

    Args:
        size: Largest number of values.
        device: Where they come from.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._host = _host_memory(size, device)
        self._event = event_on(device)
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
        """Returns the values, in memory of their own, when the device has computed them.

        Work that was launched after :meth:`start` is not waited for.
        """
        if self._event is not None:
            self._event.synchronize()
        size = math.prod(self._shape)
        values: FloatArray = self._host[:size].numpy().reshape(self._shape).copy()
        return values


def _host_memory(size: int, device: torch.device) -> Any:
    return torch.empty(size, dtype=torch.float64, pin_memory=device.type != "cpu")
