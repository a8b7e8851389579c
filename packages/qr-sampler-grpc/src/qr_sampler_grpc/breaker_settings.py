# SPDX-License-Identifier: Apache-2.0
"""Settings of the circuit breaker: ``QR_CB_*`` variables and the ``.env`` file."""

from __future__ import annotations

import sys
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from qr_sampler.errors import ConfigError
from qr_sampler.settings import describe_validation_error
from qr_sampler_grpc.adaptive_deadline import DeadlineRule

__all__ = ["BreakerOptions", "BreakerSettings"]

_PREFIX: Final = "QR_CB_"

_Options = TypeVar("_Options", bound="BreakerOptions")


class BreakerOptions(BaseModel):
    """When a draw is given up, and when a server is left alone; reads no environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = Field(
        True,
        description=(
            "Whether there is a circuit breaker; without it every draw may take the whole timeout "
            "and a failing server is asked for every token."
        ),
    )
    window_size: int = Field(
        100,
        ge=1,
        le=10_000,
        description="How many of the latest draws of a size the P99 is taken of.",
    )
    min_samples: int = Field(
        10,
        ge=1,
        le=10_000,
        description="Draws of a size before which the timeout of the source is the deadline.",
    )
    min_timeout_ms: float = Field(
        5.0, ge=0.0, le=3_600_000.0, description="Shortest deadline of a small draw."
    )
    min_timeout_ms_per_mib: float = Field(
        20.0,
        ge=0.0,
        le=3_600_000.0,
        description="What each mebibyte of a draw adds to the shortest deadline, in milliseconds.",
    )
    timeout_multiplier: float = Field(
        1.5, ge=1.0, le=1000.0, description="The deadline is this many times the P99."
    )
    max_consecutive_failures: int = Field(
        3,
        ge=1,
        le=1_000_000,
        description="Failed draws in a row after which the server is left alone.",
    )
    recovery_window_s: float = Field(
        1.0,
        gt=0.0,
        le=86_400.0,
        description=(
            "Seconds until a server that was left alone is tried; doubles with each failure."
        ),
    )
    recovery_max_s: float = Field(
        60.0, gt=0.0, le=86_400.0, description="Longest pause before a probe in seconds."
    )

    @property
    def failures_allowed(self) -> int:
        """Failed draws in a row after which the server is left alone."""
        return self.max_consecutive_failures if self.enabled else sys.maxsize

    def deadline_rule(self, cap_ms: float) -> DeadlineRule:
        """Returns the rule of the deadlines, none of which exceeds *cap_ms*."""
        return DeadlineRule(
            window_size=self.window_size,
            # More than a window holds means that the cap is the deadline.
            min_samples=min(self.min_samples, self.window_size)
            if self.enabled
            else self.window_size + 1,
            floor_ms=self.min_timeout_ms,
            floor_ms_per_mib=self.min_timeout_ms_per_mib,
            multiplier=self.timeout_multiplier,
            cap_ms=cap_ms,
        )

    @classmethod
    def checked(cls, **values: Any) -> BreakerOptions:
        """Returns options made of *values*.

        Raises:
            ConfigError: When a value is malformed; names it.
        """
        return _checked(cls, values, prefix="")


class BreakerSettings(BaseSettings, BreakerOptions):
    """The options as the environment and the ``.env`` file of the working directory set them."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
    )

    @classmethod
    def load(cls, **overrides: Any) -> BreakerSettings:
        """Returns the settings of this process, with *overrides* taking precedence.

        Raises:
            ConfigError: When a variable is malformed; names it.
        """
        return _checked(cls, overrides, prefix=_PREFIX)


def _checked(kind: type[_Options], values: dict[str, Any], *, prefix: str) -> _Options:
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError(describe_validation_error(error, kind, prefix=prefix)) from error
