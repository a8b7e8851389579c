# SPDX-License-Identifier: Apache-2.0
"""How finely, and how faithfully, an amplifier can divide the unit interval."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Resolution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What can be said of u before a byte is drawn, for one amplifier and one block length.

    The source is taken to be what the amplifier assumes: fair bits, or the device that its baseline
    describes.
    """

    lattice_step: float
    """Largest distance between neighbouring values of u near the median."""
    ks_distance: float
    """Kolmogorov distance of the law of u from the uniform law, or an upper bound of it; with a
    baseline it includes :attr:`calibration_error`."""
    calibration_error: float = 0.0
    """The part of :attr:`ks_distance` that is due to the finite length of the baseline."""
