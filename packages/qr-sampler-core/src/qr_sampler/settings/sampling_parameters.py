# SPDX-License-Identifier: Apache-2.0
"""How one token is sampled: the defaults of a deployment, each of which a request may override."""

from __future__ import annotations

from pydantic import Field

from qr_sampler.settings.temperature_parameters import TemperatureParameters

__all__ = ["SamplingParameters"]


class SamplingParameters(TemperatureParameters):
    """How one token is sampled. Every field may be overridden per request as ``qr_<field>``."""

    sample_count: int = Field(
        10_240,
        ge=1,
        description="Bytes drawn from the source for one token; the block that decides it.",
    )
    signal_amplifier_type: str = Field(
        "zscore_mean", description="Amplifier that turns a block of bytes into one uniform number."
    )
    top_n_sigma: float = Field(
        0.0,
        ge=0.0,
        le=1e6,
        description=(
            "Keep tokens whose logit is at most this many standard deviations below the largest; 0 "
            "keeps all of them."
        ),
    )
    top_k: int = Field(
        0,
        ge=-1,
        le=2**31 - 1,
        description="Keep the k most probable tokens; 0 or -1 keeps all of them.",
    )
    min_p: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Keep tokens at least this fraction as probable as the most probable one.",
    )
    top_p: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Keep the fewest most probable tokens that together reach this probability.",
    )
    typical_p: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description=(
            "Keep the fewest tokens of typical probability (-ln p near the entropy) that together "
            "reach this probability."
        ),
    )
    truncate_first: bool = Field(
        False,
        description=(
            "Apply top_n_sigma, top_k, min_p and top_p to the distribution before temperature."
        ),
    )
