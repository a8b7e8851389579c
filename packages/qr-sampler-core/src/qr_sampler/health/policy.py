# SPDX-License-Identifier: Apache-2.0
"""What a monitor assumes of a source, and what it makes of a draw that contradicts it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from qr_sampler.health.cutoffs import proportion_cutoff

__all__ = ["Alarm", "HealthPolicy", "HealthState", "Reading"]

LEAST_MIN_ENTROPY: Final = 0.2
"""In bits. Below it the proportion test could no longer fail at 2**-60."""


class HealthState(str, Enum):
    """What is known of the health of a source, or of one draw."""

    OK = "ok"
    """All tests passed."""
    SUSPECT = "suspect"
    """A test found what a good source shows with a probability of at most 2**-40, for each sample,
    window and draw: once in 2**27 draws of 10,240 bytes."""
    FAILED = "failed"
    """A test found what a good source never shows, or several draws in short time were suspect."""
    UNTESTED = "untested"
    """Nobody looked, or nobody could."""


class Reading(NamedTuple):
    """What one test measured in one draw."""

    test: str
    """Name of the test: ``repetition_count``, ``adaptive_proportion``, ``repeated_windows``,
    ``bit_planes`` or ``differences``."""
    value: float
    """What it measured."""
    suspect: float
    """From which value on the draw is suspect."""
    failed: float
    """From which value on the source has failed."""

    @property
    def alarm(self) -> Alarm | None:
        """What follows from it; ``None`` for nothing."""
        if self.value >= self.failed:
            return Alarm(self.test, self.value, self.failed, HealthState.FAILED)
        if self.value >= self.suspect:
            return Alarm(self.test, self.value, self.suspect, HealthState.SUSPECT)
        return None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A reading that contradicts what is assumed of the source."""

    test: str
    """That of the reading, or ``suspect_draws`` when there were too many of those."""
    value: float
    cutoff: float
    """From which value on that is too much."""
    state: HealthState
    """What follows from it: suspect or failed."""

    def __str__(self) -> str:
        return f"{self.test}: {self.value:g}, where {self.cutoff:g} is too much"


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The assumption about a source, and from which improbability on it counts as refuted.

    The levels are those at which jitterentropy separates passing trouble from permanent failure,
    widened to the number of bytes that tokens take.

    Raises:
        ValueError: When a test could never fail under it.
    """

    min_entropy: float = 8.0
    """Assumed min-entropy of a byte in bits: 8 for conditioned output, 6 for a raw device that
    nobody has assessed. The tests ``bit_planes`` and ``repeated_windows`` ask for more of every
    source: shares of ones within 0.03 of one half, and 16 bytes that do not come again."""
    suspect_bits: int = 40
    """A draw is suspect that holds what has a probability of 2**-40 or less, see ``cutoffs``."""
    failed_bits: int = 60
    """A source has failed from 2**-60 on."""
    suspect_errors: float = 7.3
    """The same for shares of ones, in standard errors: 2 Phi(-7.3) = 2**-41.7."""
    failed_errors: float = 9.0
    """2 Phi(-9) = 2**-61.9."""
    most_suspect: int = 3
    """So many suspect draws among the latest ones are a failure."""
    among: int = 64
    """Number of draws that count as the latest."""

    def __post_init__(self) -> None:
        if not LEAST_MIN_ENTROPY <= self.min_entropy <= 8.0:
            raise ValueError(
                f"min_entropy={self.min_entropy} must lie in [{LEAST_MIN_ENTROPY}, 8] bits per byte"
            )
        if not 0 < self.suspect_bits <= self.failed_bits:
            raise ValueError(
                f"suspect_bits={self.suspect_bits} must be positive, and failed_bits="
                f"{self.failed_bits} no smaller"
            )
        proportion_cutoff(self.min_entropy, self.failed_bits)
