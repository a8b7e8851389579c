# SPDX-License-Identifier: Apache-2.0
"""Where a running total reaches a goal, found without sorting.

A histogram over the leading bits of the keys shows in which bin the goal lies, two more over the
bits below leave one logit. Tokens with equal logits have equal masses, so a division says how many
of them are needed. Every step has a fixed shape and runs on the device.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from qr_sampler_accel.device.passes import BIN_BITS, BINS, DeviceRows, Passes
from qr_sampler_accel.device.scratch import Scratch

__all__ = ["FIRST_SHIFT", "RadixDescent", "RowLandings", "logits_of"]

KEY_BITS: Final = 32

FIRST_SHIFT: Final = KEY_BITS - BIN_BITS
"""Bits that the first histogram leaves out."""

SHIFTS: Final = (FIRST_SHIFT, FIRST_SHIFT - BIN_BITS, 0)
"""The last histogram has bins to spare: ten bits are left for it."""


class RowLandings(NamedTuple):
    """The logit at which a running total reaches a goal. Shapes ``(D,)``."""

    value: torch.Tensor
    """Float32, the logit."""
    missing: torch.Tensor
    """Float64, what the tokens with this logit have to contribute, at least 1."""
    mass: torch.Tensor
    """Float64, what they contribute together."""


class RadixDescent:
    """Finds goals among the running totals of rows in rank order.

    Args:
        rows: Largest number of rows D.
        device: Where the logits are.
        scratch: Lends memory for numbers of D rows, also for results.
    """

    def __init__(self, rows: int, device: torch.device, scratch: Scratch) -> None:
        self._scratch = scratch
        self._totals = torch.empty((rows, BINS), dtype=torch.float64, device=device)
        self._first = torch.empty_like(self._totals)
        self._bins = torch.empty_like(self._totals)
        self._flag = torch.empty((rows, BINS), dtype=torch.bool, device=device)
        self._before = torch.empty((rows, BINS), dtype=torch.int64, device=device)
        self._base = torch.full((rows,), -(BINS // 2), dtype=torch.int64, device=device)

    def first_totals(
        self, passes: Passes, rows: DeviceRows, inverse: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns the running totals of the first histogram, which no goal is needed for.

        Args:
            passes: Does the work.
            rows: The D rows.
            inverse: Shape ``(D,)``, float64, 1 / T; ``None`` to count tokens instead.

        Returns:
            Shape ``(D, BINS)``, float64, valid until the next call.
        """
        out, base = self._first[: rows.count], self._base[: rows.count]
        return self._running(passes, rows, inverse, FIRST_SHIFT, base, out)

    def reach(
        self,
        passes: Passes,
        rows: DeviceRows,
        inverse: torch.Tensor | None,
        goal: torch.Tensor,
        first: torch.Tensor,
    ) -> RowLandings:
        """Returns where the running totals reach *goal*.

        Args:
            passes: Does the work.
            rows: The D rows.
            inverse: Shape ``(D,)``, float64, 1 / T; ``None`` to count tokens instead.
            goal: Shape ``(D,)``, float64, whole numbers from 1 to the total.
            first: What :meth:`first_totals` returned for the same rows and *inverse*.
        """
        base, totals = self._base[: rows.count], first
        mass = goal
        for shift, following in zip(SHIFTS, (*SHIFTS[1:], None), strict=True):
            if shift != FIRST_SHIFT:
                out = self._totals[: rows.count]
                totals = self._running(passes, rows, inverse, shift, base, out)
            place, goal, mass = self._bin_of(totals, goal)
            base = torch.add(base, place, out=place)
            if following is not None:
                base.bitwise_left_shift_(shift - following)
        return RowLandings(logits_of(base, self._scratch), goal, mass)

    def _running(
        self,
        passes: Passes,
        rows: DeviceRows,
        inverse: torch.Tensor | None,
        shift: int,
        base: torch.Tensor,
        out: torch.Tensor,
    ) -> torch.Tensor:
        bins = self._bins[: rows.count]
        passes.histogram(rows, inverse, shift, base, bins)
        return torch.cumsum(bins, dim=1, out=out)

    def _bin_of(
        self, totals: torch.Tensor, goal: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the bin in which *goal* is reached, the goal inside it, and its mass."""
        scratch = self._scratch
        flag = torch.lt(totals, goal[:, None], out=self._flag[: len(totals)])
        before = self._before[: len(totals)].copy_(flag)
        # A row that turns out to be undecidable may have no mass, and reaches nothing.
        place = torch.sum(before, dim=1, out=scratch.integers()).clamp_(max=BINS - 1)
        previous = torch.sub(place, 1, out=scratch.integers()).clamp_(min=0)
        below = _picked(totals, previous, scratch.floats())
        below.masked_fill_(torch.eq(place, 0, out=scratch.flags()), 0.0)
        mass = _picked(totals, place, scratch.floats()).sub_(below)
        return place, torch.sub(goal, below, out=scratch.floats()), mass


def _picked(totals: torch.Tensor, place: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Returns the total at *place* in each row, in *out*."""
    torch.gather(totals, 1, place[:, None], out=out[:, None])
    return out


def logits_of(keys: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """Returns the logits that have the given keys.

    Args:
        keys: Shape ``(D,)``, integers; see :class:`Passes`.
        scratch: Lends memory for D rows, also for the result.

    Returns:
        Shape ``(D,)``, float32.
    """
    ordered = scratch.take(torch.int32).copy_(keys).bitwise_not_()
    sign = torch.bitwise_right_shift(ordered, 31, out=scratch.take(torch.int32))
    return ordered.bitwise_xor_(sign.bitwise_and_(0x7FFFFFFF)).view(torch.float32)
