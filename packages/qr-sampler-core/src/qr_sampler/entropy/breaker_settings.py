# SPDX-License-Identifier: Apache-2.0
"""Settings of the circuit breaker: ``QR_CB_*`` variables and the ``.env`` file."""

from __future__ import annotations

import sys

from pydantic import Field

from qr_sampler.entropy.adaptive_deadline import DeadlineRule
from qr_sampler.settings.environment import EnvironmentSettings
from qr_sampler.settings.option_models import Options, environment

__all__ = ["BreakerOptions", "BreakerSettings"]


class BreakerOptions(Options):
    """When a draw is given up, and when a source is left alone; reads no environment."""

    enabled: bool = Field(
        True,
        description=(
            "Whether there is a circuit breaker; without it every draw may take the whole timeout, "
            "and a failing source is tried again for every token."
        ),
    )
    window_size: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Number of recent draws of each size used for the P99.",
    )
    min_samples: int = Field(
        10,
        ge=1,
        le=10_000,
        description="Draws of a size needed before the P99 replaces the timeout as the deadline.",
    )
    min_timeout_ms: float = Field(
        5.0, ge=0.0, le=3_600_000.0, description="Shortest deadline of a small draw."
    )
    min_timeout_ms_per_mib: float = Field(
        20.0,
        ge=0.0,
        le=3_600_000.0,
        description="Milliseconds that each mebibyte of a draw adds to the shortest deadline.",
    )
    min_timeout_ms_without_fallback: float = Field(
        1000.0,
        ge=0.0,
        le=3_600_000.0,
        description=(
            "Shortest deadline while no other source takes over, because a draw that is abandoned "
            "then ends requests."
        ),
    )
    timeout_multiplier: float = Field(
        1.5, ge=1.0, le=1000.0, description="The deadline is this many times the P99."
    )
    max_consecutive_failures: int = Field(
        3,
        ge=1,
        le=1_000_000,
        description="Consecutive failed draws after which the source is left alone.",
    )
    recovery_window_s: float = Field(
        1.0,
        gt=0.0,
        le=86_400.0,
        description=(
            "Seconds until a source that was left alone is retried; doubles with each failure."
        ),
    )
    recovery_max_s: float = Field(
        60.0, gt=0.0, le=86_400.0, description="Longest pause before a probe in seconds."
    )

    @property
    def failures_allowed(self) -> int:
        """Failed draws in a row after which the source is left alone."""
        return self.max_consecutive_failures if self.enabled else sys.maxsize

    def deadline_rule(
        self, cap_ms: float, *, shortest_ms: float = 0.0, has_fallback: bool = True
    ) -> DeadlineRule:
        """Returns the rule of the deadlines, none of which exceeds *cap_ms*.

        Args:
            cap_ms: Longest deadline in milliseconds.
            shortest_ms: Shortest one, whatever the options say.
            has_fallback: Whether another source takes over when a draw is given up.
        """
        without_fallback_ms = 0.0 if has_fallback else self.min_timeout_ms_without_fallback
        return DeadlineRule(
            window_size=self.window_size,
            # More than a window holds means that the cap is the deadline.
            min_samples=min(self.min_samples, self.window_size)
            if self.enabled
            else self.window_size + 1,
            floor_ms=max(self.min_timeout_ms, without_fallback_ms, shortest_ms),
            floor_ms_per_mib=self.min_timeout_ms_per_mib,
            multiplier=self.timeout_multiplier,
            cap_ms=cap_ms,
        )

    @classmethod
    def from_environment(cls) -> BreakerOptions:
        """Returns the options that ``QR_CB_*`` variables and the ``.env`` file set.

        Raises:
            ConfigError: When a variable is malformed; names it.
        """
        return BreakerOptions(**BreakerSettings.load().model_dump())


class BreakerSettings(EnvironmentSettings, BreakerOptions):
    """The options as the environment and the ``.env`` file of the working directory set them."""

    model_config = environment("QR_CB_")
