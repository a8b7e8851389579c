# SPDX-License-Identifier: Apache-2.0
"""Passes over rows of logits in Triton kernels, which read the logits once and keep no copy."""

from __future__ import annotations

from typing import Any, Final

import torch
import triton

from qr_sampler_vllm.torch_passes import DeviceRows, Passes
from qr_sampler_vllm.torch_radix import logits_of
from qr_sampler_vllm.triton_kernels import (
    COMPILE_OPTIONS,
    add_masses_at,
    fill_histogram,
    find_lowest,
)

__all__ = ["TritonPasses"]

BLOCK: Final = 1024
"""Tokens per program."""


class TritonPasses(Passes):
    """The passes as one kernel each."""

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

    def masses_at(
        self, rows: DeviceRows, inverse: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As in :class:`Passes`."""
        above, at = torch.zeros_like(inverse), torch.zeros_like(inverse)
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
        keys = torch.full_like(farthest, torch.iinfo(torch.int32).min, dtype=torch.int32)
        _launch(find_lowest, rows, inverse, farthest, least, keys)
        return logits_of(keys)


def _launch(kernel: Any, rows: DeviceRows, inverse: Any, *arguments: Any) -> None:
    """Runs *kernel* with one program per row and block of tokens."""
    if not rows.count:
        return
    grid = (rows.count, triton.cdiv(rows.vocab_size, BLOCK))
    leading = (rows.logits, rows.logits.stride(0), rows.vocab_size, rows.maximum, inverse)
    kernel[grid](*leading, rows.unit, *arguments, BLOCK, **COMPILE_OPTIONS)
