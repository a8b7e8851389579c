# SPDX-License-Identifier: Apache-2.0
"""Entropy, varentropy and spread of rows on a device, rounded as the reference rounds them.

The device adds up in float64 and the host decides from a few numbers per row whether the order of
addition could matter. Where it could, for a language model in about one row of ten million for the
moments and of ten thousand for the deviation, the row is copied to the host and settled there.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from qr_sampler._typing import FloatArray, IndexArray, Logits
from qr_sampler.selection.masses import EXPONENT_FLOOR, distances
from qr_sampler.selection.statistics import (
    FLOAT64_ERROR,
    Moments,
    is_settled,
    logit_deviation,
    row_moments,
)
from qr_sampler_vllm.torch_masses import fill_exponents
from qr_sampler_vllm.torch_passes import DeviceRows, TorchPasses

__all__ = ["Sums", "launch_sums"]


def launch_sums(
    passes: TorchPasses, rows: DeviceRows, out: torch.Tensor, *, deviation: bool
) -> None:
    """Fills *out* with the numbers that :class:`Sums` reads. Rows need no finite maximum.

    Args:
        passes: Lends its buffers.
        rows: B rows; *maximum* is filled in.
        out: Shape ``(7, B)``, or ``(4, B)`` without *deviation*; float64.
        deviation: Whether to add up what :meth:`Sums.deviation` reads.
    """
    torch.amax(rows.logits, dim=1, out=rows.maximum)
    out[0].copy_(rows.maximum)
    for lines, logits, buffers in passes.pieces(rows):
        fill_exponents(buffers, logits, rows.maximum[lines])
        exponent, terms = buffers.exponent.clamp_(min=EXPONENT_FLOOR), buffers.mass
        torch.exp(exponent, out=terms)
        for column in out[1:4, lines]:
            torch.sum(terms, dim=1, out=column)
            terms.mul_(exponent)
    if deviation:
        _launch_spread(passes, rows, out[4:])


def _launch_spread(passes: TorchPasses, rows: DeviceRows, out: torch.Tensor) -> None:
    for lines, logits, buffers in passes.pieces(rows):
        values, terms, masked = buffers.exponent, buffers.mass, buffers.flag
        count, largest, squares = out[:, lines]
        torch.eq(logits, -torch.inf, out=masked)
        count.copy_(masked.sum(dim=1)).neg_().add_(rows.vocab_size)
        values.copy_(logits).masked_fill_(masked, 0.0)
        torch.amax(torch.abs(values, out=terms), dim=1, out=largest)
        values.sub_((values.sum(dim=1) / count)[:, None]).masked_fill_(masked, 0.0)
        torch.sum(torch.mul(values, values, out=terms), dim=1, out=squares)


class Sums:
    """What the device added up, on the host.

    Args:
        values: What :func:`launch_sums` filled in.
    """

    def __init__(self, values: FloatArray) -> None:
        self._values = values

    @property
    def lines(self) -> IndexArray:
        """Indices of the rows with a finite maximum."""
        return np.flatnonzero(np.isfinite(self._values[0]))

    def moments(self, line: int, logits: torch.Tensor, settle: int) -> Moments:
        """Returns the moments of one row with a finite maximum.

        Args:
            line: Index of the row.
            logits: Shape ``(V,)``, the row.
            settle: How many of the moments have to be rounded as the reference rounds them.
        """
        weight, first, second = self._values[1:4, line].tolist()
        moments = Moments.from_sums(weight, first, second)
        errors = _errors(-first / weight, second / weight)[:settle]
        if all(is_settled(*pair) for pair in zip(moments, errors, strict=False)):
            return moments
        return row_moments(distances(_on_host(logits)))

    def deviation(self, line: int, logits: torch.Tensor) -> float:
        """Returns the standard deviation of the finite logits of one row, rounded to float32.

        Args:
            line: Index of the row.
            logits: Shape ``(V,)``, the row.
        """
        count, largest, squares = self._values[4:7, line].tolist()
        deviation = math.sqrt(squares / count)
        error = FLOAT64_ERROR * (deviation + largest)
        lower, upper = np.float32(max(deviation - error, 0.0)), np.float32(deviation + error)
        return float(lower) if lower == upper else logit_deviation(_on_host(logits))


def _errors(mean: float, square: float) -> tuple[float, float]:
    """Returns bounds of the errors of both moments, each sum being off by FLOAT64_ERROR.

    H = ln S - A / S and V = Q / S - (A / S)**2; *mean* is -A / S and *square* is Q / S.
    """
    return FLOAT64_ERROR * (1.0 + 2.0 * mean), FLOAT64_ERROR * (2.0 * square + 4.0 * mean * mean)


def _on_host(logits: torch.Tensor) -> Logits:
    row: Logits = logits.cpu().numpy()
    return row
