# SPDX-License-Identifier: Apache-2.0
"""Passes over rows of logits in Triton kernels, which read the logits once and keep no copy."""

from __future__ import annotations

from typing import Any, Final

import torch
import triton

from qr_sampler_accel.device.masses import MassBuffers
from qr_sampler_accel.device.passes import DeviceRows, Passes
from qr_sampler_accel.device.radix import logits_of
from qr_sampler_accel.device.scratch import Scratch
from qr_sampler_accel.device.triton.kernels import (
    COMPILE_OPTIONS,
    add_masses_at,
    add_moments,
    fill_histogram,
    find_lowest,
    find_maxima,
    store_masses,
)

__all__ = ["TritonPasses"]

BLOCK: Final = 1024
"""Tokens per program."""


class TritonPasses(Passes):
    """The passes as one kernel each.

    Args:
        rows: Largest number of rows D.
        columns: Number of tokens V.
        device: Where the logits are.
        scratch: Lends memory for results with one number per row.
    """

    def __init__(self, rows: int, columns: int, device: torch.device, scratch: Scratch) -> None:
        self._scratch = scratch
        # A number per program, not atomic additions: sums are to be the same in every run.
        shape = (rows, triton.cdiv(columns, BLOCK))
        self._maxima = torch.empty(shape, dtype=torch.float32, device=device)
        self._sums = torch.empty((3, *shape), dtype=torch.float64, device=device)

    def moments(self, rows: DeviceRows, out: torch.Tensor) -> None:
        """As in :class:`Passes`."""
        if not rows.count:
            return
        maxima, sums = self._maxima[: rows.count], self._sums[:, : rows.count]
        grid, leading = tuple(maxima.shape), (rows.logits, rows.logits.stride(0), rows.vocab_size)
        find_maxima[grid](*leading, maxima, BLOCK, **COMPILE_OPTIONS)
        torch.amax(maxima, dim=1, out=rows.maximum)
        out[0].copy_(rows.maximum)
        parts = sums.stride(0)
        add_moments[grid](*leading, rows.maximum, sums, parts, BLOCK, **COMPILE_OPTIONS)
        torch.sum(sums, dim=2, out=out[1:])

    def histogram(
        self,
        rows: DeviceRows,
        inverse: torch.Tensor | None,
        shift: int,
        base: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """As in :class:`Passes`."""
        weighted = inverse is not None
        _launch(
            fill_histogram, rows, inverse if weighted else base, base, out.zero_(), shift, weighted
        )

    def masses(self, rows: DeviceRows, inverse: torch.Tensor, buffers: MassBuffers) -> None:
        """As in :class:`Passes`."""
        _launch(store_masses, rows, inverse, buffers.mass)

    def masses_at(
        self, rows: DeviceRows, inverse: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As in :class:`Passes`."""
        above, at = self._scratch.floats().zero_(), self._scratch.floats().zero_()
        _launch(add_masses_at, rows, inverse, value, above, at)
        return above, at

    def lowest(
        self,
        rows: DeviceRows,
        inverse: torch.Tensor,
        farthest: torch.Tensor,
        least: torch.Tensor,
    ) -> torch.Tensor:
        """As in :class:`Passes`."""
        keys = self._scratch.take(torch.int32).fill_(torch.iinfo(torch.int32).min)
        _launch(find_lowest, rows, inverse, farthest, least, keys)
        return logits_of(keys, self._scratch)


def _launch(kernel: Any, rows: DeviceRows, inverse: Any, *arguments: Any) -> None:
    """Runs *kernel* with one program per row and block of tokens."""
    if not rows.count:
        return
    grid = (rows.count, triton.cdiv(rows.vocab_size, BLOCK))
    leading = (rows.logits, rows.logits.stride(0), rows.vocab_size, rows.maximum, inverse)
    kernel[grid](*leading, rows.unit, *arguments, BLOCK, **COMPILE_OPTIONS)
