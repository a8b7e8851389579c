# SPDX-License-Identifier: Apache-2.0
"""How the sources of this package read their configuration."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from qr_sampler.errors import ConfigError
from qr_sampler.settings import describe_validation_error

__all__ = ["SourceSettings"]

S = TypeVar("S", bound="SourceSettings")


class SourceSettings(BaseSettings):
    """Base of the settings of one source; a subclass adds its ``env_prefix`` and its fields.

    Values come from ``QR_*`` environment variables, then from a ``.env`` file in the working
    directory, then from the defaults. An empty variable counts as absent.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
    )

    @classmethod
    def load(cls: type[S]) -> S:
        """Returns the settings of this process.

        Raises:
            ConfigError: When a value is malformed or out of range; names the variable.
        """
        try:
            return cls()
        except ValidationError as error:
            prefix = cls.model_config.get("env_prefix", "")
            raise ConfigError(describe_validation_error(error, cls, prefix=prefix)) from error
