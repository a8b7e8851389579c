# SPDX-License-Identifier: Apache-2.0
"""The sources that a protocol draws from: of which kind each is, and what it fixes of them.

A source may have a name of its own (``QR_SOURCES``, ``QR_SOURCES_FILE``), so that two devices of
one kind can be compared. What counts is what the protocol declares, whatever the environment says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qr_sampler.components.amplifiers import AMPLIFIERS
from qr_sampler.components.sources import ENTROPY_SOURCES
from qr_sampler.components.strategies import TEMPERATURE_STRATEGIES
from qr_sampler.errors import ConfigError, PluginError
from qr_sampler.settings import EnvironmentSettings
from qr_sampler.settings.active_instance import Declaration
from qr_sampler.settings.source_declarations import declared_in
from qr_sampler_lab.experiments.protocol.model import Protocol

__all__ = [
    "declarations_of",
    "settings_of_component",
    "settings_of_kind",
    "stated_settings",
    "with_kinds",
]

_VARIABLE: Final = "QR_SOURCES"
_FILE: Final = "QR_SOURCES_FILE"


def declarations_of(protocol: Protocol, study: Path) -> Mapping[str, Declaration]:
    """Returns the sources that a protocol gives names of their own, by name.

    Args:
        protocol: The protocol.
        study: Directory that its relative paths are below.

    Raises:
        ConfigError: When they are malformed, or in a file that cannot be sealed.
    """
    text, file = (str(protocol.environment.get(name, "")) for name in (_VARIABLE, _FILE))
    if Path(file).is_absolute():
        raise ConfigError(
            f"{_FILE}={file}: it is not below the study, so that nothing would seal it; copy it "
            "there and name the copy"
        )
    return declared_in(text, study.resolve() / file if file else None)


def with_kinds(protocol: Protocol, study: Path) -> Protocol:
    """Returns *protocol* with every arm drawing from the kind that its source is of.

    Raises:
        ConfigError: As :func:`declarations_of`.
    """
    declared = declarations_of(protocol, study)
    arms = tuple(
        arm.model_copy(update={"source": declared[arm.source].kind})
        if arm.source in declared
        else arm
        for arm in protocol.arms
    )
    return protocol.model_copy(update={"arms": arms})


def stated_settings(protocol: Protocol, declared: Declaration | None, kind: str) -> dict[str, Any]:
    """Returns what a protocol says of the settings of a source, by variable of its kind.

    Args:
        protocol: The protocol.
        declared: What it declares of a source with a name of its own.
        kind: The kind of the source.
    """
    model = settings_of_kind(kind)
    own: dict[str, Any] = {}
    if declared is not None and model is not None:
        prefix = str(model.model_config.get("env_prefix", ""))
        own = {f"{prefix}{field}".upper(): value for field, value in declared.values.items()}
        if declared.location and model.location:
            own[f"{prefix}{model.location}".upper()] = declared.location
    return {**protocol.environment, **own}


def settings_of_kind(kind: str) -> type[EnvironmentSettings] | None:
    """Returns the settings of a kind of source; ``None`` if it names none or is not installed."""
    try:
        return ENTROPY_SOURCES.load(kind).settings_model
    except PluginError:
        return None


def settings_of_component(kind: str, name: str) -> type[EnvironmentSettings] | None:
    """Returns the settings of an amplifier or a strategy; ``None`` as for a kind of source.

    Args:
        kind: ``signal_amplifier`` or ``temperature_strategy``.
        name: Its name.
    """
    try:
        if kind == "signal_amplifier":
            return AMPLIFIERS.load(name).settings_model
        return TEMPERATURE_STRATEGIES.load(name).settings_model
    except PluginError:
        return None
