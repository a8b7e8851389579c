# SPDX-License-Identifier: Apache-2.0
"""What the settings of all sources have in common: where they come from, how they are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import SettingsConfigDict

from qr_sampler.errors import ConfigError
from qr_sampler.settings.validation_errors import describe_validation_error

__all__ = ["OPTIONS", "checked", "environment"]

_Options = TypeVar("_Options", bound=BaseModel)

OPTIONS = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
"""The configuration of a model that reads no environment."""


def environment(prefix: str) -> SettingsConfigDict:
    """Returns the configuration of a model that reads the environment and the ``.env`` file.

    Args:
        prefix: What the names of its variables begin with.
    """
    # What both bases of such a model configure is the options' unless it is said here.
    return SettingsConfigDict(env_prefix=prefix, extra="ignore", frozen=True, allow_inf_nan=False)


def checked(kind: type[_Options], values: Mapping[str, Any], *, prefix: str) -> _Options:
    """Returns a *kind* made of *values*.

    Args:
        kind: The model.
        values: Its fields.
        prefix: How the names of fields begin in a message.

    Raises:
        ConfigError: When a value is malformed; names it.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError(describe_validation_error(error, kind, prefix=prefix)) from error
