# SPDX-License-Identifier: Apache-2.0
"""The settings that installed components of other projects have of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from qr_sampler import AMPLIFIERS, ENTROPY_SOURCES, TEMPERATURE_STRATEGIES
from qr_sampler.errors import PluginError
from qr_sampler.foreign import words_of
from qr_sampler.settings import EnvironmentSettings
from qr_sampler_cli.settings.catalogue import CATALOGUE
from qr_sampler_cli.settings.reference import SettingsGroup, configuration_tables

__all__ = ["PluggedSettings", "own_settings", "plugged_settings"]

REGISTRIES: Final[dict[str, Any]] = {
    "QR_ENTROPY_SOURCE_TYPE": ENTROPY_SOURCES,
    "QR_SIGNAL_AMPLIFIER_TYPE": AMPLIFIERS,
    "QR_TEMPERATURE_STRATEGY": TEMPERATURE_STRATEGIES,
}
"""Registries of components, by the setting that chooses among them."""


@dataclass(frozen=True, slots=True)
class PluggedSettings:
    """The settings of one component, or why they cannot be shown."""

    component: str
    """Name of the component."""
    group: SettingsGroup | None
    """The settings; ``None`` if they cannot be shown."""
    reason: str = ""
    """Why not."""


def own_settings(variable: str, name: str) -> type[EnvironmentSettings] | None:
    """Returns the model of the settings of a component, ``None`` if it names none.

    Args:
        variable: The setting that chooses the component.
        name: Name of the component.

    Raises:
        PluginError: When the component does not load.
        TypeError: When what it names is no model of settings.
    """
    model: object = REGISTRIES[variable].load(name).settings_model
    if model is None:
        return None
    if not (isinstance(model, type) and issubclass(model, EnvironmentSettings)):
        raise TypeError(f"settings_model of {name!r} is no subclass of EnvironmentSettings")
    return model


def plugged_settings() -> Iterator[PluggedSettings]:
    """Yields the settings of installed components that are not in the catalogue."""
    known = {(entry.module, entry.model) for entry in CATALOGUE}
    for variable, registry in REGISTRIES.items():
        for name in registry.names():
            try:
                model = own_settings(variable, name)
                if model is None or (model.__module__, model.__name__) in known:
                    continue
                group = SettingsGroup(
                    title=f"Settings of `{name}`",
                    package=registry.find(name).origin.distribution,
                    text=f"For `{variable}={name}`.",
                    model=model,
                )
                configuration_tables([group])
            except PluginError as error:
                yield PluggedSettings(name, None, str(error))
            # The model is code of others, too.
            except Exception as error:
                yield PluggedSettings(name, None, words_of(error))
            else:
                yield PluggedSettings(name, group)
