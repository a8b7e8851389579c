# SPDX-License-Identifier: Apache-2.0
"""How arms are put in order, when the study stops, and what runs outside of the randomisation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from qr_sampler_lab.experiments.protocol.part import Name, Part

__all__ = ["Design", "Exclusions", "ScheduledRun", "Stopping"]


class Design(Part):
    """Randomisation in balanced permuted blocks."""

    unit: Literal["request", "session"] = Field(
        "request",
        description="What is randomised: each request, or sessions whose requests share one arm.",
    )
    blocks: int = Field(
        ge=1, le=100_000, description="Number of blocks, each a permutation of the same arms."
    )
    requests_per_session: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Requests of a session of one arm (unit: session); for unit: request the "
        "session is the block, and this is 1.",
    )
    tokens_per_request: int = Field(ge=1, le=1_000_000, description="Most tokens of an answer.")
    fixed_length: bool = Field(
        True,
        description="Whether every answer has exactly so many tokens; else u decides where it ends",
    )
    order: Literal["drand", "secret"] = Field(
        "secret",
        description="Where the order comes from: a public round after the seal, or a secret that "
        "the seal commits to.",
    )

    @model_validator(mode="after")
    def _sessions_of_requests_are_blocks(self) -> Design:
        if self.unit == "request" and self.requests_per_session != 1:
            raise ValueError(
                f"requests_per_session={self.requests_per_session} is for unit: session; with "
                "unit: request a session is a block, so remove it"
            )
        return self


class Stopping(Part):
    """When the study is over; the runner alone decides, by this rule."""

    rule: Literal["fixed", "e_value"] = Field(
        default="fixed",
        description="After all blocks; or when the e-value is reached, at the latest.",
    )
    tau: float | None = Field(
        default=None,
        gt=0.0,
        le=100.0,
        description="Standard deviation of the effect that the e-process expects, on the "
        "difference of two tokens divided by the root of 2 (e_value only).",
    )

    @model_validator(mode="after")
    def _tau_belongs_to_e_values(self) -> Stopping:
        if (self.tau is None) == (self.rule == "e_value"):
            raise ValueError("tau is needed for rule: e_value, and has no meaning for rule: fixed")
        return self


class Exclusions(Part):
    """Which tokens the primary analysis leaves out; the report shows it with all of them, too."""

    fallback: bool = Field(default=True, description="Tokens that another source decided.")
    not_just_in_time: bool = Field(
        default=True, description="Tokens whose bytes preceded their logits."
    )
    # A good source is suspect once in 2**40 draws, so that leaving these out takes nothing from an
    # effect; a broken one moves u by itself.
    suspect_tokens: Literal["count", "exclude"] = Field(
        default="exclude",
        description="Whether tokens count whose bytes the health tests found suspect; the report "
        "shows the primary result both ways.",
    )
    first_tokens: int = Field(
        default=0, ge=0, description="So many tokens at the start of every answer."
    )


class ScheduledRun(Part):
    """Requests of an arm at a fixed place: calibration with nobody there, or a sham."""

    phase: Literal["calibration", "sham"]
    arm: Name
    at: Literal["before", "after", "every_block"] = Field(
        description="Before the first block, after the last one, or after every block."
    )
    requests: int = Field(ge=1, le=100_000)
