# SPDX-License-Identifier: Apache-2.0
"""What the settings of all sources have in common: where they come from, how they are refused."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import SettingsConfigDict

from qr_sampler.errors import ConfigError
from qr_sampler.settings.validation_errors import describe_validation_error

__all__ = ["Options", "environment"]

_Options = TypeVar("_Options", bound="Options")


class Options(BaseModel):
    """What a source can be told; a subclass adds its fields. Reads no environment.

    The settings of a deployment are a subclass of
    :class:`~qr_sampler.settings.environment.EnvironmentSettings` and of the options, in that order,
    configured by :func:`environment`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def checked(cls: type[_Options], **values: Any) -> _Options:
        """Returns options made of *values*.

        Raises:
            ConfigError: When a value is malformed; names it.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError(describe_validation_error(error, cls, prefix="")) from error


def environment(prefix: str) -> SettingsConfigDict:
    """Returns the configuration of a model that reads the environment and the ``.env`` file.

    Args:
        prefix: What the names of its variables begin with.
    """
    # What both bases of such a model configure is the options' unless it is said here.
    return SettingsConfigDict(env_prefix=prefix, extra="ignore", frozen=True, allow_inf_nan=False)
