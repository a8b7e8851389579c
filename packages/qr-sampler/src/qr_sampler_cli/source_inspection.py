# SPDX-License-Identifier: Apache-2.0
"""What can be said about every installed entropy source, broken ones included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qr_sampler.entropy import EntropySource
from qr_sampler.errors import ConfigError, PluginConflictError, PluginLoadError
from qr_sampler.registry import ENTROPY_SOURCES, Plugin

__all__ = ["SourceReport", "State", "inspect_sources"]

State = Literal["available", "unavailable", "misconfigured", "broken", "conflict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """One entry point of the group of entropy sources."""

    name: str
    """Name by which the configuration refers to the source."""
    distribution: str
    """Distribution that declares it, empty when its metadata do not say."""
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
    state: State
    """Whether the next draw is expected to succeed, and if not, what kind of fault it is."""
    reason: str = ""
    """Why not, or a remark of the source."""
    probed: bool = False
    """Whether `state` is the result of a real draw."""


def inspect_sources(*, probe: bool) -> tuple[SourceReport, ...]:
    """Returns a report on every entry point, sorted by name; never raises for a faulty one.

    Args:
        probe: Draw one byte from each source instead of asking for its passive status.
    """
    return tuple(_inspect(plugin, probe=probe) for plugin in ENTROPY_SOURCES.plugins())


def _inspect(plugin: Plugin, *, probe: bool) -> SourceReport:
    try:
        source_class = ENTROPY_SOURCES.load(plugin.name)
        jit = source_class.jit_class
        jit_class, jit_meaning = jit.value, jit.name.lower()
        conditioning = source_class.conditioning
    except PluginConflictError as error:
        return _report(plugin, state="conflict", reason=str(error))
    except PluginLoadError as error:
        return _report(plugin, state="broken", reason=error.reason)
    # Third-party code can fail in any way, sys.exit() included; what it did is shown in its row.
    except (Exception, SystemExit) as error:
        return _report(plugin, state="broken", reason=f"{type(error).__name__}: {error}")
    state, reason = _availability(source_class, probe=probe)
    return _report(
        plugin,
        jit_class=jit_class,
        jit_meaning=jit_meaning,
        conditioning=conditioning,
        state=state,
        reason=reason,
        probed=probe and state in ("available", "unavailable"),
    )


def _availability(source_class: type[EntropySource], *, probe: bool) -> tuple[State, str]:
    """Returns what a source of this class, configured from the environment, says of itself."""
    try:
        source = source_class.from_environment()
        try:
            status = source.probe() if probe else source.status()
        finally:
            source.close()
    except ConfigError as error:
        return "misconfigured", str(error)
    # As above: a defect of a source is a row of the table, never the end of the command.
    except (Exception, SystemExit) as error:
        return "broken", f"{type(error).__name__}: {error}"
    return ("available" if status.available else "unavailable"), status.reason


def _report(
    plugin: Plugin,
    *,
    state: State,
    reason: str,
    jit_class: str = "",
    jit_meaning: str = "",
    conditioning: str = "",
    probed: bool = False,
) -> SourceReport:
    return SourceReport(
        name=plugin.name,
        distribution=plugin.origin.distribution or "",
        version=plugin.origin.version or "",
        target=plugin.target,
        jit_class=jit_class,
        jit_meaning=jit_meaning,
        conditioning=conditioning,
        state=state,
        reason=reason,
        probed=probed,
    )
