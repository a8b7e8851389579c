# SPDX-License-Identifier: Apache-2.0
"""What is asked of the data: one primary endpoint, and secondary ones that are corrected."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, field_validator

from qr_sampler_lab.experiments.protocol.part import Name, Part, Words

__all__ = ["BETWEEN_ARMS_TOLERANCE", "Contrast", "PrimaryEndpoint", "SecondaryEndpoint", "Side"]

Side: TypeAlias = Literal["greater", "less", "two-sided"]
"""Which results speak against the null hypothesis."""

Contrast: TypeAlias = dict[Name, Annotated[float, Field(ge=-1e3, le=1e3)]]
"""Weight of each arm; weights that add up to zero compare arms with each other."""

BETWEEN_ARMS_TOLERANCE: Final = 1e-9
"""Sum of weights up to which a contrast counts as one between arms."""


class _Endpoint(Part):
    contrast: Contrast = Field(
        min_length=1, max_length=64, description="Weights of the means of arms."
    )
    side: Side = "two-sided"
    about: Words | None = None

    @field_validator("contrast")
    @classmethod
    def _weighs_something(cls, contrast: Contrast) -> Contrast:
        for arm, weight in contrast.items():
            if weight == 0:
                raise ValueError(f"the weight of arm {arm!r} is 0; leave the arm out instead")
        return contrast

    @property
    def compares_arms(self) -> bool:
        """Whether arms are compared with each other, rather than with theory."""
        return abs(math.fsum(self.contrast.values())) <= BETWEEN_ARMS_TOLERANCE


class PrimaryEndpoint(_Endpoint):
    """The one result that decides.

    The estimate is the sum of weight times mean over the arms of the contrast, in standard
    deviations of the statistic under the null hypothesis.
    """

    statistic: Literal["mean_statistic", "mean_u"] = Field(
        "mean_statistic", description="Mean of the amplifier's statistic, or of u, over tokens."
    )
    alpha: float = Field(ge=1e-12, le=0.5, description="False-alarm rate of the whole study.")
    smallest_effect: float = Field(
        gt=0.0,
        le=1e3,
        description="Smallest effect of interest: the contrast, in standard deviations per token.",
    )
    power: float = Field(
        0.8, gt=0.0, lt=1.0, description="Wanted probability to find that effect if it exists."
    )


class SecondaryEndpoint(_Endpoint):
    """A result that is reported, corrected for their number, and decides nothing."""

    name: Name
    statistic: Literal["mean_statistic", "mean_u", "variance", "ks", "cusum"] = Field(
        "mean_statistic",
        description="Mean as of the primary endpoint; or difference of variances (variance), of "
        "distributions of u (ks), drift within the arms (cusum).",
    )
