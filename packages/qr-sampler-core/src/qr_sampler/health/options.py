# SPDX-License-Identifier: Apache-2.0
"""Whether a source is watched, by which tests, and what they assume of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from qr_sampler.health.monitor import HealthMonitor
from qr_sampler.health.policy import LEAST_MIN_ENTROPY, HealthPolicy
from qr_sampler.health.source_health import FULL_MIN_ENTROPY, Tested, assumed_min_entropy

__all__ = ["Assumption", "HealthOptions", "Watchable"]


class Watchable(Protocol):
    """What a source says of itself that decides about its tests."""

    @property
    def conditioning(self) -> str:
        """What was done to its raw bits."""

    @property
    def integrates(self) -> bool:
        """Whether its draws are numbers that the far side has made of its bytes."""

    @property
    def min_entropy_per_byte(self) -> float | None:
        """What an assessment has found; 0 for bytes that are chosen."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """What the tests of one source look at and assume."""

    tested: Tested
    """What they look at."""
    policy: HealthPolicy | None
    """What they assume; ``None`` where nothing is tested."""
    reason: str = ""
    """Why nothing is tested; empty where something is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthOptions:
    """How the sources of a deployment are watched."""

    enabled: bool = True
    """Whether they are (``QR_HEALTH``)."""
    min_entropy: float | None = None
    """Min-entropy of a byte in bits that is assumed of every source; ``None`` for what each says
    of itself (``QR_HEALTH_MIN_ENTROPY``)."""
    make_monitor: Callable[[HealthPolicy], HealthMonitor] = HealthMonitor
    """Makes the tests of a source."""

    def assumption(self, source: Watchable) -> Assumption:
        """Returns what the tests of *source* look at and assume."""
        if not self.enabled:
            return Assumption("nothing", None, "switched off by QR_HEALTH=false")
        if source.integrates:
            return Assumption("nothing", None, "its draws are numbers that the far side has made")
        declared = self.min_entropy
        if declared is None:
            declared = _declared(source.min_entropy_per_byte)
        conditioning = str(source.conditioning)
        entropy = min(assumed_min_entropy(conditioning, declared), FULL_MIN_ENTROPY)
        if entropy < LEAST_MIN_ENTROPY:
            said = f"it declares {entropy:g} bits of min-entropy in a byte, which nothing refutes"
            return Assumption("nothing", None, said)
        tested: Tested = "raw" if conditioning == "none" else "output"
        return Assumption(tested, HealthPolicy(min_entropy=entropy))


def _declared(value: Any) -> float | None:
    """Returns what a source declares; ``None`` for what is no number of bits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
