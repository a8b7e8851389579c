# SPDX-License-Identifier: Apache-2.0
"""The spectrum of bytes: hum, clocks and periods are lines in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_BYTES", "SpectralLine", "largest_line", "power_spectrum"]

MOST_BYTES: Final = 2**22
"""Bytes that are transformed at once at most; the rest is not looked at."""

_VARIANCE: Final = (256**2 - 1) / 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralLine:
    """The largest line of a spectrum."""

    period: float
    """Its period in bytes."""
    power: float
    """Its power, relative to the mean power of uniform independent bytes."""
    p_value: float
    """Probability of so large a line anywhere in the spectrum of such bytes."""


def power_spectrum(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Returns the periodogram, relative to that of uniform independent bytes.

    Args:
        data: Bytes, shape ``(n,)``, of which the first power of two, at most 2**22, are used.

    Returns:
        Shape ``(m / 2 - 1,)`` for m bytes: power at the periods m, m / 2 … but not at 2, each
        exponential with mean 1 in the limit of many bytes.
    """
    size = min(MOST_BYTES, 2 ** int(math.log2(len(data))))
    waves = np.fft.rfft(data[:size].astype(np.float64) - 127.5)
    return np.asarray(np.abs(waves[1:-1]) ** 2 / (size * _VARIANCE), dtype=np.float64)


def largest_line(data: npt.NDArray[np.uint8]) -> SpectralLine:
    """Returns the largest line; its p-value is 1 - (1 - exp(-power))**lines.

    R. A. Fisher (Proc. Roy. Soc. A 125, 1929) has the test for an unknown variance, here it is
    known.
    """
    spectrum = power_spectrum(data)
    place = int(np.argmax(spectrum))
    power = float(spectrum[place])
    missed = math.log1p(-math.exp(-power)) if power > 0.0 else -math.inf
    return SpectralLine(
        period=2.0 * (len(spectrum) + 1) / (place + 1),
        power=power,
        p_value=-math.expm1(len(spectrum) * missed),
    )
