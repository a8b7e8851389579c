# SPDX-License-Identifier: Apache-2.0
"""The base of all settings: where their values come from, and how a bad one is refused."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from qr_sampler.errors import ConfigError
from qr_sampler.settings.active_instance import active_values
from qr_sampler.settings.env_file import ENCODING, readable_env_file
from qr_sampler.settings.validation_errors import describe_validation_error

__all__ = ["EnvironmentSettings"]

S = TypeVar("S", bound="EnvironmentSettings")


class EnvironmentSettings(BaseSettings):
    """Settings of one part of a deployment; a subclass adds its ``env_prefix`` and its fields.

    Values come from keyword arguments, then from the declaration of the named source that is being
    configured (see :mod:`qr_sampler.settings.active_instance`), then from environment variables,
    then from the ``.env`` file (see :mod:`qr_sampler.settings.env_file`), then from the defaults.
    An empty variable counts as absent.

    Raises:
        ConfigError: When there is a ``.env`` file that cannot be read.
    """

    location: ClassVar[str | None] = None
    """Name of the field that says where the device is, which a named source gives after its kind;
    ``None`` if no field does."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns where values come from, in order; called by pydantic."""
        file = DotEnvSettingsSource(
            settings_cls, env_file=readable_env_file(), env_file_encoding=ENCODING
        )
        instance = active_values()
        if instance is None:
            return init_settings, env_settings, file
        declared = InitSettingsSource(settings_cls, instance.values_for(cls, cls.location))
        return init_settings, declared, env_settings, file

    @classmethod
    def load(cls: type[S], **overrides: Any) -> S:
        """Returns the settings of this process, with *overrides* taking precedence.

        Raises:
            ConfigError: When a value is malformed or out of range; names the variable.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            prefix = cls.model_config.get("env_prefix", "")
            raise ConfigError(
                describe_validation_error(error, cls, prefix=prefix, names=cls.declared_names())
            ) from error

    @classmethod
    def declared_names(cls) -> dict[str, str]:
        """Returns what users call the fields that the named source being configured has set."""
        instance = active_values()
        return {} if instance is None else instance.names_in(cls, cls.location)
