# SPDX-License-Identifier: Apache-2.0
"""Settings of thermodynamic speculative decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from qr_sampler import ConfigError
from qr_sampler.settings import describe_validation_error

__all__ = ["TSDSettings"]

_PREFIX = "QR_TSD_"


class TSDSettings(BaseSettings):
    """Settings of one deployment, from ``QR_TSD_*`` environment variables and the ``.env`` file.

    Raises:
        ConfigError: From :meth:`load`, naming each offending variable, its value and its meaning.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    mode: Literal["exact_match", "canonical"] = Field(
        "exact_match",
        description=(
            "How drafts are verified: 'exact_match' lets one draw after the logits decide every "
            "token, 'canonical' accepts and corrects draws from the proposal."
        ),
    )
    proposer: Path | None = Field(
        None, description="File of a saved proposer, which makes the proposals."
    )
    verifier: Literal["token", "block"] = Field(
        "block",
        description="Rule of the canonical mode: tokens one by one, or whole blocks.",
    )

    @classmethod
    def load(cls, **overrides: Any) -> TSDSettings:
        """Returns the settings of this process, with *overrides* taking precedence.

        Raises:
            ConfigError: When a value is malformed or out of range.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise ConfigError(describe_validation_error(error, cls, prefix=_PREFIX)) from error
