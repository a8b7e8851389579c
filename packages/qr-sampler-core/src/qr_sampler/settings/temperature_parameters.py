# SPDX-License-Identifier: Apache-2.0
"""The settings of temperature strategies, one group of fields per strategy.

They live beside :mod:`qr_sampler.settings`, not in the package of the strategies: the settings are
built from them, and the strategies are built on the settings.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["MAX_TEMPERATURE", "MIN_TEMPERATURE", "TemperatureParameters"]

MIN_TEMPERATURE: Final = 1e-3
"""Smallest temperature: its inverse times any logit difference stays meaningful in float32."""

MAX_TEMPERATURE: Final = 1e3
"""Largest temperature; every distribution is flat long before."""

_Temperature = Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]
_Exponent = Annotated[float, Field(ge=0.0, le=100.0)]
_Weight = Annotated[float, Field(ge=-100.0, le=100.0)]

_RANGED_STRATEGIES: Final = ("edt", "dynatemp", "varentropy")
"""Strategies with a ``<name>_min_temp`` and a ``<name>_max_temp``."""


class TemperatureParameters(BaseModel):
    """How the temperature of one token is chosen.

    Raises:
        ValueError: When the range of temperatures of a strategy is empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature_strategy: str = Field(
        "fixed", description="Strategy that chooses the temperature of a token."
    )
    fixed_temperature: _Temperature = Field(
        0.7,
        description="Temperature of the 'fixed' strategy. For greedy decoding set top_k to 1.",
    )

    edt_base_temp: _Temperature = Field(
        0.8,
        description="Temperature that the 'edt' strategy uses at maximal entropy.",
    )
    edt_exponent: _Exponent = Field(
        0.5,
        description="Power to which the 'edt' strategy raises the normalised entropy.",
    )
    edt_min_temp: _Temperature = Field(
        0.1, description="Lowest temperature of the 'edt' and 'edt_paper' strategies."
    )
    edt_max_temp: _Temperature = Field(
        2.0, description="Highest temperature of the 'edt' and 'edt_paper' strategies."
    )

    edt_paper_base_temp: _Temperature = Field(
        1.0,
        description="Temperature T0 that the 'edt_paper' strategy approaches as entropy grows.",
    )
    edt_paper_n: float = Field(
        0.8,
        gt=0.0,
        le=1.0,
        description="Base N of the 'edt_paper' strategy; 1 switches the dependence on entropy off.",
    )
    edt_paper_theta: _Exponent = Field(
        1.0,
        description=(
            "Exponent theta of the 'edt_paper' strategy, in nats: the entropy at which the "
            "temperature is T0 * N; 0 switches the dependence on entropy off."
        ),
    )

    dynatemp_min_temp: _Temperature = Field(
        0.2, description="Temperature that the 'dynatemp' strategy uses at zero entropy."
    )
    dynatemp_max_temp: _Temperature = Field(
        1.5, description="Temperature that the 'dynatemp' strategy uses at maximal entropy."
    )
    dynatemp_exponent: _Exponent = Field(
        1.0,
        description="Power to which the 'dynatemp' strategy raises the normalised entropy.",
    )

    varentropy_base_temp: _Temperature = Field(
        0.7,
        description="Temperature that the 'varentropy' strategy uses where all its terms vanish.",
    )
    varentropy_entropy_weight: _Weight = Field(
        0.3,
        description="What the 'varentropy' strategy adds per nat of entropy.",
    )
    varentropy_variance_weight: _Weight = Field(
        -0.1,
        description="What the 'varentropy' strategy adds per square nat of varentropy.",
    )
    varentropy_drift_weight: _Weight = Field(
        0.0,
        description=(
            "What the 'varentropy' strategy adds per nat by which the entropy exceeds its running "
            "mean over the emitted tokens of the request; 0 ignores the past."
        ),
    )
    varentropy_drift_rate: float = Field(
        0.02,
        gt=0.0,
        le=1.0,
        description="Weight of the newest token in the running mean of the entropy.",
    )
    varentropy_min_temp: _Temperature = Field(
        0.1, description="Lowest temperature of the 'varentropy' strategy."
    )
    varentropy_max_temp: _Temperature = Field(
        2.0, description="Highest temperature of the 'varentropy' strategy."
    )

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> TemperatureParameters:
        for strategy in _RANGED_STRATEGIES:
            low, high = f"{strategy}_min_temp", f"{strategy}_max_temp"
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low}={getattr(self, low)} exceeds {high}={getattr(self, high)}; "
                    "swap them or widen the range"
                )
        return self
