# SPDX-License-Identifier: Apache-2.0
"""What is known of the health of a source, and what the tests could see of it at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from qr_sampler.health.policy import HealthState

__all__ = [
    "FULL_MIN_ENTROPY",
    "RAW_MIN_ENTROPY",
    "SourceHealth",
    "Tested",
    "assumed_min_entropy",
]

Tested: TypeAlias = Literal["raw", "output", "nothing"]
"""What the tests look at: the raw bits of a device, what a conditioner has made of them, where they
find a dead pipe and no more, or nothing."""

FULL_MIN_ENTROPY: Final = 8.0
"""Bits per byte that conditioned output is assumed to have."""

RAW_MIN_ENTROPY: Final = 6.0
"""Bits per byte that bytes are assumed to have which may be raw and which nobody has assessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHealth:
    """The health of one source in this process, as of now."""

    state: HealthState
    """What the tests say of the source."""
    tested: Tested
    """What they look at."""
    reason: str = ""
    """Why the source has failed, is suspect or is untested; empty if all is well."""
    alarms: Mapping[str, int] = field(default_factory=dict)
    """How many draws each test has objected to, by its name; tests that have not are left out."""
    retry_after_s: float | None = None
    """Seconds until a failed source may be tested again; ``None`` where none has failed, or where
    it is not tested again."""


def assumed_min_entropy(conditioning: str, declared: float | None = None) -> float:
    """Returns the min-entropy of a byte, in bits, that tests assume of a source.

    Args:
        conditioning: What the source says was done to the raw bits. Where that is not known, they
            may be raw.
        declared: What an assessment has found; ``None`` if there is none.
    """
    if declared is not None:
        return declared
    return RAW_MIN_ENTROPY if conditioning in ("none", "unknown") else FULL_MIN_ENTROPY
