# SPDX-License-Identifier: Apache-2.0
"""Reports on every installed entropy source, broken ones included."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from qr_sampler import ENTROPY_SOURCES, Plugin, create_source
from qr_sampler.components.failure_policy import health_options
from qr_sampler.components.sources import named_sources
from qr_sampler.entropy import EntropySource
from qr_sampler.errors import ConfigError, PluginConflictError, PluginLoadError
from qr_sampler.health import HealthOptions
from qr_sampler.settings import Settings

__all__ = ["SourceReport", "State", "inspect_sources"]

State = Literal["available", "unavailable", "misconfigured", "broken", "conflict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """One entry point of the group of entropy sources, or a source with a name of its own."""

    name: str
    """Name by which the configuration refers to the source."""
    kind: str = ""
    """Name of its kind if it has a name of its own, else empty."""
    distribution: str
    """Distribution that declares it, empty if its metadata does not name it."""
    version: str
    """Version of that distribution."""
    target: str
    """The ``module:Class`` that implements it."""
    jit_class: str = ""
    """Letter of the just-in-time class, empty when the class could not be loaded."""
    jit_meaning: str = ""
    """The just-in-time class in a word."""
    conditioning: str = ""
    """What was done to the raw bits."""
    tested: str = ""
    """What its health tests look at: ``raw`` bits, ``output`` of a conditioner, ``nothing``."""
    state: State
    """Whether the next draw is expected to succeed, and if not, what kind of fault it is."""
    reason: str = ""
    """Why not, or a remark by the source."""
    configured: bool = False
    """Whether QR_ENTROPY_SOURCE_TYPE names it."""
    takes_over: bool = False
    """Whether QR_FALLBACK_MODE names it, and it is not the configured one."""
    probed: bool = False
    """Whether `state` and `reason` come from a real draw."""


def inspect_sources(
    settings: Settings, names: Collection[str] = (), *, probe: bool
) -> tuple[SourceReport, ...]:
    """Returns a report on every source, those with names of their own last; also on faulty ones.

    Args:
        settings: The deployment's settings, which name some of them.
        names: Those to report on; all of them if empty.
        probe: Draw one byte from each source instead of asking for its passive status.

    Raises:
        ConfigError: When the declaration of a source with a name of its own is malformed.
    """
    plugins, health = ENTROPY_SOURCES.plugins(), health_options(settings)
    kinds = [(plugin.name, plugin) for plugin in plugins]
    named = [
        (one.name, plugin)
        for one in named_sources().values()
        for plugin in plugins
        if plugin.name == one.kind
    ]
    return tuple(
        dataclasses.replace(
            _inspect(name, plugin, health, probe=probe),
            configured=name == settings.entropy_source_type,
            takes_over=name == settings.fallback_mode != settings.entropy_source_type,
        )
        for name, plugin in (*kinds, *named)
        if not names or name in names
    )


def _inspect(name: str, plugin: Plugin, health: HealthOptions, *, probe: bool) -> SourceReport:
    report = _blank(name, plugin)
    try:
        source_class = ENTROPY_SOURCES.load(plugin.name)
        report = _described(report, source_class)
        source = source_class.from_environment() if name == plugin.name else create_source(name)
        try:
            report = _described(report, source)
            report = dataclasses.replace(report, tested=health.assumption(source).tested)
            status = source.probe() if probe else source.status()
        finally:
            source.close()
    except PluginConflictError as error:
        return dataclasses.replace(report, state="conflict", reason=str(error))
    except PluginLoadError as error:
        return dataclasses.replace(report, state="broken", reason=error.reason)
    except ConfigError as error:
        return dataclasses.replace(report, state="misconfigured", reason=str(error))
    # Third-party code can fail in any way, sys.exit() included; what it did is shown in its row.
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        return dataclasses.replace(report, state="broken", reason=reason)
    state: State = "available" if status.available else "unavailable"
    return dataclasses.replace(report, state=state, reason=status.reason, probed=probe)


def _blank(name: str, plugin: Plugin) -> SourceReport:
    return SourceReport(
        name=name,
        kind="" if name == plugin.name else plugin.name,
        # Metadata without these fields yields None, whatever its type promises.
        distribution=plugin.origin.distribution or "",
        version=plugin.origin.version or "",
        target=plugin.target,
        state="broken",
    )


def _described(report: SourceReport, source: EntropySource | type[EntropySource]) -> SourceReport:
    """Returns *report* with what the class says of itself, or its instance once there is one."""
    return dataclasses.replace(
        report,
        jit_class=source.jit_class.value,
        jit_meaning=source.jit_class.name.lower(),
        conditioning=source.conditioning,
    )
