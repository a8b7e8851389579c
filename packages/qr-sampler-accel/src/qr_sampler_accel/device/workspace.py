# SPDX-License-Identifier: Apache-2.0
"""The memory in which rows are worked on, allocated once and used in every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch

from qr_sampler_accel.device.passes import Passes, TorchPasses
from qr_sampler_accel.device.radix import RadixDescent
from qr_sampler_accel.device.scratch import Scratch
from qr_sampler_accel.device.transfer import Download, Upload

__all__ = ["Kernels", "Workspace", "kernel_passes"]

Kernels = Literal["auto", "torch", "triton"]
"""What the passes over masses run on; ``auto`` is Triton on CUDA where it can be imported."""

SUMS: Final = 7
"""Numbers per row that the host reads before the draw."""

OUTCOME: Final = 4
"""Numbers per row that the host reads after the choice."""

FILTERS: Final = 7
"""Parameters per row."""


class Workspace:
    """Everything that is allocated once and used in every step.

    Args:
        rows: Largest number of rows B.
        columns: Number of tokens V.
        device: Where the logits are.
        kernels: What to run the passes on.
    """

    def __init__(self, rows: int, columns: int, device: torch.device, kernels: Kernels) -> None:
        self.rows, self.columns, self.device = rows, columns, device
        self.scratch = Scratch(rows, device)
        self.plain = TorchPasses(rows, columns, device, self.scratch)
        in_kernels = kernel_passes(kernels, device.type)
        self.passes = (
            self.plain if in_kernels is None else in_kernels(rows, columns, device, self.scratch)
        )
        self.descent = RadixDescent(rows, device, self.scratch)
        self.maximum = torch.empty(rows, dtype=torch.float32, device=device)
        self.sums = torch.empty(SUMS * rows, dtype=torch.float64, device=device)
        self.chosen = torch.empty(OUTCOME * rows, dtype=torch.float64, device=device)
        self.measured = Download(SUMS * rows, device)
        self.selected = Download(OUTCOME * rows, device)
        self.filters = Upload(FILTERS * rows, device)
        self.quantiles, self.lines, self.typical = (Upload(rows, device) for _ in range(3))

    def fits(self, logits: torch.Tensor) -> bool:
        """Whether a batch can be worked on in this memory."""
        rows, columns = logits.shape
        same = columns == self.columns and logits.device == self.device
        return bool(same and rows <= self.rows)


def kernel_passes(kernels: Kernels, device_type: str) -> Callable[..., Passes] | None:
    """Returns what makes passes that run in kernels, or ``None`` for torch operations.

    Args:
        kernels: What to run them on.
        device_type: Where the logits are, as ``torch.device.type``.

    Raises:
        ImportError: When *kernels* is ``triton`` and it cannot be imported.
    """
    if kernels == "torch" or (kernels == "auto" and device_type != "cuda"):
        return None
    try:
        from qr_sampler_accel.device.triton.passes import TritonPasses
    except ImportError:
        if kernels == "triton":
            raise
        return None
    return TritonPasses
