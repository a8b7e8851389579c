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

from qr_sampler.arrays import FloatArray, IndexArray, Logits, MaskArray
from qr_sampler.selection.masses import distances
from qr_sampler.selection.statistics import FLOAT64_ERROR, logit_deviation, row_moments
from qr_sampler.temperature import STATISTICS_STEP
from qr_sampler_accel.device.passes import DeviceRows, TorchPasses
from qr_sampler_accel.device.scratch import Scratch

__all__ = ["Sums", "launch_spread"]


def launch_spread(
    passes: TorchPasses, rows: DeviceRows, out: torch.Tensor, scratch: Scratch
) -> None:
    """Fills *out* with the numbers that :meth:`Sums.deviations` reads.

    Args:
        passes: Lends its buffers.
        rows: B rows, which need no finite maximum.
        out: Shape ``(3, B)``, float64: receives the number of logits that are not masked, the
            largest of their absolute values, and the sum of their squared deviations.
        scratch: Lends memory for numbers of B rows.
    """
    masked_count, mean = scratch.integers(), scratch.floats()
    for lines, logits, buffers in passes.pieces(rows):
        values, terms, masked = buffers.exponent, buffers.mass, buffers.flag
        count, largest, squares = out[:, lines]
        torch.eq(logits, -torch.inf, out=masked)
        torch.sum(buffers.flags_as_integers(), dim=1, out=masked_count[lines])
        count.copy_(masked_count[lines]).neg_().add_(rows.vocab_size)
        values.copy_(logits).masked_fill_(masked, 0.0)
        torch.amax(torch.abs(values, out=terms), dim=1, out=largest)
        torch.sum(values, dim=1, out=mean[lines]).div_(count)
        values.sub_(mean[lines, None]).masked_fill_(masked, 0.0)
        torch.sum(torch.mul(values, values, out=terms), dim=1, out=squares)


class Sums:
    """What the device added up, on the host.

    Args:
        values: Shape ``(4, B)``: what :meth:`Passes.moments` filled in; or ``(7, B)``, followed by
            what :func:`launch_spread` did.
    """

    def __init__(self, values: FloatArray) -> None:
        self.lines: IndexArray = np.flatnonzero(np.isfinite(values[0]))
        """Indices of the D rows with a finite maximum."""
        self._values = values[:, self.lines]

    def moments(self, logits: torch.Tensor, settle: IndexArray) -> tuple[FloatArray, FloatArray]:
        """Returns entropy and varentropy of the rows with a finite maximum. Shapes ``(D,)``.

        H = ln S - A / S and V = Q / S - (A / S)**2, see ``Moments`` of the reference.

        Args:
            logits: Shape ``(B, V)``, the rows.
            settle: Shape ``(B,)``, how many of the two have to be rounded as the reference does.
        """
        weight, first, second = self._values[1:4]
        mean, square = -first / weight, second / weight
        entropy = np.maximum(np.log(weight) + mean, 0.0)
        varentropy = np.maximum(square - mean * mean, 0.0)
        # Each of the sums is off by FLOAT64_ERROR at most.
        settled = _is_settled(entropy, FLOAT64_ERROR * (1.0 + 2.0 * mean))
        settled_too = _is_settled(varentropy, FLOAT64_ERROR * (2.0 * square + 4.0 * mean * mean))
        wanted = settle[self.lines]
        doubtful = ((wanted > 0) & ~settled) | ((wanted > 1) & ~settled_too)
        for place in np.flatnonzero(doubtful).tolist():
            row = _on_host(logits[int(self.lines[place])])
            entropy[place], varentropy[place] = row_moments(distances(row))
        return entropy, varentropy

    def deviations(self, logits: torch.Tensor, wanted: MaskArray) -> FloatArray:
        """Returns the standard deviation of the finite logits of each row, rounded to float32.

        Args:
            logits: Shape ``(B, V)``, the rows.
            wanted: Shape ``(B,)``, of which rows to return it.

        Returns:
            Shape ``(D,)``, of the rows with a finite maximum; NaN where it is not wanted.
        """
        deviations = np.full(self.lines.size, np.nan)
        for place in np.flatnonzero(wanted[self.lines]).tolist():
            deviations[place] = self._deviation(place, logits[int(self.lines[place])])
        return deviations

    def _deviation(self, place: int, logits: torch.Tensor) -> float:
        count, largest, squares = self._values[4:7, place].tolist()
        deviation = math.sqrt(squares / count)
        error = FLOAT64_ERROR * (deviation + largest)
        lower, upper = np.float32(max(deviation - error, 0.0)), np.float32(deviation + error)
        return float(lower) if lower == upper else logit_deviation(_on_host(logits))


def _is_settled(values: FloatArray, errors: FloatArray) -> MaskArray:
    """Whether all numbers within *errors* of *values* are nearest to one multiple of the step."""
    lower, upper = (values - errors) / STATISTICS_STEP, (values + errors) / STATISTICS_STEP
    settled: MaskArray = np.rint(lower) == np.rint(upper)
    return settled


def _on_host(logits: torch.Tensor) -> Logits:
    row: Logits = logits.cpu().numpy()
    return row
