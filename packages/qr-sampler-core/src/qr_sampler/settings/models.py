# SPDX-License-Identifier: Apache-2.0
"""Configuration: what an operator sets for a deployment, and what a request may change.

:class:`~qr_sampler.settings.environment.EnvironmentSettings` says where values come from.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from qr_sampler.settings.environment import EnvironmentSettings
from qr_sampler.settings.sampling_parameters import SamplingParameters
from qr_sampler.settings.temperature_parameters import MAX_TEMPERATURE, MIN_TEMPERATURE
from qr_sampler.settings.validation_errors import describe_validation_error, public_name

__all__ = [
    "BYTE_MEAN",
    "BYTE_STD",
    "END_REQUEST",
    "MAX_TEMPERATURE",
    "MIN_TEMPERATURE",
    "RAISE_ERROR",
    "SamplingParameters",
    "Settings",
    "describe_validation_error",
    "public_name",
]

BYTE_MEAN: Final = 127.5
"""Mean of the discrete uniform law on 0..255."""

BYTE_STD: Final = math.sqrt((256**2 - 1) / 12)
"""Standard deviation of the discrete uniform law on 0..255: sqrt((n**2 - 1) / 12) with n = 256."""

RAISE_ERROR: Final = "error"
"""The ``fallback_mode`` that raises instead of falling back."""

END_REQUEST: Final = "end_request"
"""The ``fallback_mode`` that ends the affected requests instead of falling back."""


class Settings(EnvironmentSettings, SamplingParameters):
    """Settings of one deployment: the sampling defaults, and what no request may change.

    Raises:
        ConfigError: From :meth:`load`, naming each offending variable, its value and its meaning.
    """

    # What both bases configure is the second one's unless it is said here.
    model_config = SettingsConfigDict(
        env_prefix="QR_", extra="ignore", frozen=True, allow_inf_nan=False
    )

    entropy_source_type: str = Field(
        "system", description="Name of the entropy source that chooses the tokens."
    )
    fallback_mode: str = Field(
        "system",
        description=(
            "Name of the source that takes over, flagged on every token, while the configured one "
            "is unavailable; 'end_request' ends the affected requests instead, 'error' stops."
        ),
    )
    request_entropy_sources: str = Field(
        "",
        description=(
            "Further sources, separated by commas, that a request may choose with "
            "qr_entropy_source."
        ),
    )
    draw_timeout_ms: float = Field(
        10_000.0,
        gt=0.0,
        le=3_600_000.0,
        description=(
            "Longest time that a draw may take before it has failed; late answers are dropped."
        ),
    )
    health: bool = Field(
        True,
        description=(
            "Test the bytes of every source before they decide a token, and refuse those of a "
            "source that has failed; false for a control that is biased on purpose."
        ),
    )
    health_min_entropy: float | None = Field(
        None,
        ge=0.2,
        le=8.0,
        description=(
            "Min-entropy of a byte in bits that the health tests assume of every source; by "
            "default what a source declares, else 8 for conditioned output and 6 for raw bytes."
        ),
    )
    follow_request: bool = Field(
        False,
        description=(
            "Take temperature, top_p, top_k and min_p from the ordinary fields of a request, which "
            "can override this with qr_follow_request."
        ),
    )
    max_sample_count: int = Field(
        65_536,
        ge=1,
        lt=2**24,
        description="Largest sample_count that a request may ask for.",
    )
    population_mean: float = Field(
        BYTE_MEAN,
        ge=0.0,
        le=255.0,
        description="Mean of one byte of an unbiased source, as assumed by amplifiers.",
    )
    population_std: float = Field(
        BYTE_STD,
        ge=1e-3,
        le=BYTE_MEAN,
        description="Standard deviation of one byte of an unbiased source.",
    )
    baseline_file: Path | None = Field(
        None,
        description="JSON file with the frozen baseline of the device that amplifiers refer to.",
    )
    max_ks_distance: float = Field(
        0.005,
        gt=0.0,
        le=1.0,
        description=(
            "Largest Kolmogorov distance D between the distribution of u and the uniform one that "
            "the length of a block or of a baseline may cause. A test at the 5 % level detects it "
            "from about (1.36 / D)**2 tokens, 74,000 for the default; lower it for longer studies."
        ),
    )
    ledger_dir: Path | None = Field(
        None,
        description="Directory that receives the records, one JSON Lines file per engine process.",
    )
    ledger_required: bool = Field(
        False,
        description=(
            "End requests ('forced', reason 'ledger') rather than leave tokens unrecorded: when "
            "the disk refuses, or half of ledger_queue is full."
        ),
    )
    ledger_queue: int = Field(
        65_536,
        ge=1_024,
        le=16_777_216,
        description=(
            "Most records that wait for the disk, in memory; those that find no room are counted "
            "in a 'gap' line."
        ),
    )
    ledger_process: bool = Field(
        True,
        description=(
            "Have a process of its own write the ledger of an engine, for which its steps would "
            "wait otherwise; it takes some 60 MB of memory. Where it cannot be started, and should "
            "it end, a thread of the engine writes."
        ),
    )
    ledger_sync_ms: float = Field(
        1_000.0,
        ge=0.0,
        le=3_600_000.0,
        description=(
            "Interval at which the disk is made to keep what was written, should the power fail; "
            "0 does so after every write."
        ),
    )
    ledger_max_bytes: int = Field(
        1_073_741_824,
        ge=0,
        description=(
            "Size from which on the records go on in another file, whose first line names this "
            "one; 0 for no limit."
        ),
    )
    ledger_blocks: bool = Field(
        False,
        description=(
            "Keep the bytes of every draw in a file beside the ledger, so that everything that was "
            "made of them can be checked, and replayed."
        ),
    )
    ledger_model_digest: bool = Field(
        True,
        description=(
            "Write digests of the model's files into the ledger. They are computed beside the "
            "engine once requests arrive, at the lowest priority, and kept for the next start; a "
            "large model takes minutes of one core."
        ),
    )
    ledger_prompts: bool = Field(
        False,
        description=(
            "Write the token ids of prompts to a file beside the ledger, '….prompts.jsonl', and "
            "their keyed digests into the ledger. The ids are the text."
        ),
    )
    ledger_seal: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description=(
            "Digest of a sealed plan, 64 hexadecimal digits in lower case, that the chain of the "
            "records begins with; none if empty."
        ),
    )
    log_level: Literal["none", "summary", "full"] = Field(
        "summary",
        description="What the 'qr_sampler' logger reports of a token: nothing, a line, everything.",
    )

    @model_validator(mode="after")
    def _default_block_is_allowed(self) -> Settings:
        if self.sample_count > self.max_sample_count:
            raise ValueError(
                f"sample_count={self.sample_count} exceeds max_sample_count="
                f"{self.max_sample_count}; lower the first or raise the second"
            )
        return self

    @model_validator(mode="after")
    def _population_has_one_origin(self) -> Settings:
        figures = (self.population_mean, self.population_std)
        if self.baseline_file is not None and figures != (BYTE_MEAN, BYTE_STD):
            raise ValueError(
                f"baseline_file={self.baseline_file} brings its own mean and deviation, but "
                f"population_mean={self.population_mean} and population_std={self.population_std} "
                "are set too; unset either the file or those two"
            )
        return self

    @model_validator(mode="after")
    def _what_is_required_has_a_place(self) -> Settings:
        if self.ledger_required and self.ledger_dir is None:
            raise ValueError(
                "ledger_required=true needs a ledger; set ledger_dir to a directory for it"
            )
        return self

    @model_validator(mode="after")
    def _blocks_have_a_ledger(self) -> Settings:
        if self.ledger_blocks and self.ledger_dir is None:
            raise ValueError(
                "ledger_blocks needs a ledger that tells of the draws; set ledger_dir to a "
                "directory"
            )
        return self

    @model_validator(mode="after")
    def _prompts_have_a_ledger(self) -> Settings:
        if self.ledger_prompts and self.ledger_dir is None:
            raise ValueError(
                "ledger_prompts needs a ledger to stand beside; set ledger_dir to a directory"
            )
        return self

    @model_validator(mode="after")
    def _what_is_sealed_has_a_place(self) -> Settings:
        if self.ledger_seal and self.ledger_dir is None:
            raise ValueError(
                "ledger_seal needs a ledger that begins with it; set ledger_dir to a directory"
            )
        return self

    @model_validator(mode="after")
    def _no_source_is_called_like_a_mode(self) -> Settings:
        for name in self.selectable_sources:
            if name in (RAISE_ERROR, END_REQUEST):
                raise ValueError(
                    f"the name {name!r} in entropy_source_type or request_entropy_sources stands "
                    "for what fallback_mode does without a source, so no source of that name can "
                    "be chosen; remove it"
                )
        return self

    @property
    def selectable_sources(self) -> tuple[str, ...]:
        """Names of the sources that a request may choose, the configured one first."""
        declared = (name.strip() for name in self.request_entropy_sources.split(","))
        return tuple(dict.fromkeys([self.entropy_source_type, *filter(None, declared)]))

    @property
    def sampling(self) -> SamplingParameters:
        """The sampling defaults that a request starts from."""
        names = SamplingParameters.model_fields
        return SamplingParameters.model_construct(**{name: getattr(self, name) for name in names})
