# SPDX-License-Identifier: Apache-2.0
"""Discovery of components that installed distributions offer through entry points."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Generic, TypeVar

from qr_sampler.errors import (
    PluginConflictError,
    PluginLoadError,
    UnknownPluginError,
)
from qr_sampler.foreign import is_signal, words_of

__all__ = ["Origin", "Plugin", "Registry"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Origin:
    """The installed distribution that a component came from."""

    distribution: str = ""
    """Distribution name, empty for a component that was constructed directly."""
    version: str = ""
    """Distribution version."""
    kind: str = ""
    """Name of the kind of a component that has a name of its own, empty for all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One entry point, read from metadata without importing anything."""

    name: str
    """Name by which the configuration refers to the component."""
    target: str
    """The ``module:Class`` that the entry point names."""
    origin: Origin
    """Distribution that declares the entry point."""

    @property
    def distribution(self) -> str:
        """Distribution and version as text."""
        return f"{self.origin.distribution} {self.origin.version}".strip() or "an unknown package"


class Registry(Generic[T]):
    """Components of one kind, keyed by name and imported on first use.

    Listing reads metadata only. Two distributions that claim one name are an error for that name
    alone, and so is a component that fails to import: the others keep working.

    Args:
        kind: What the components are, for error messages.
        group: Entry-point group to scan.
        base: Class that every component must derive from.
    """

    def __init__(self, kind: str, group: str, base: type[T]) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._loaded: dict[str, type[T]] = {}

    def plugins(self) -> tuple[Plugin, ...]:
        """Returns every entry point of the group, sorted by name; conflicts appear twice."""
        plugins = {self._plugin(entry_point) for entry_point in entry_points(group=self.group)}
        return tuple(sorted(plugins, key=lambda plugin: (plugin.name, plugin.distribution)))

    def names(self) -> tuple[str, ...]:
        """Returns the names that the configuration may use, sorted."""
        return tuple(sorted({plugin.name for plugin in self.plugins()}))

    def find(self, name: str) -> Plugin:
        """Returns the one entry point called *name*, without importing it.

        Raises:
            UnknownPluginError: When no distribution offers the name.
            PluginConflictError: When several do.
        """
        matches = [plugin for plugin in self.plugins() if plugin.name == name]
        if not matches:
            raise UnknownPluginError(self.kind, name, self.names())
        if len(matches) > 1:
            claimants = tuple(plugin.distribution for plugin in matches)
            raise PluginConflictError(self.kind, name, claimants)
        return matches[0]

    def load(self, name: str) -> type[T]:
        """Returns the class called *name*, importing its module on first use.

        Raises:
            UnknownPluginError: When no distribution offers the name.
            PluginConflictError: When several do.
            PluginLoadError: When the module fails to import or holds something else.
        """
        if name not in self._loaded:
            self._loaded[name] = self._import(self.find(name))
        return self._loaded[name]

    def _import(self, plugin: Plugin) -> type[T]:
        entry_point = EntryPoint(name=plugin.name, value=plugin.target, group=self.group)
        try:
            component = entry_point.load()
        # A third-party module can fail in any way; what it did is reported, never swallowed.
        except BaseException as error:
            if is_signal(error):
                raise
            reason = words_of(error)
            raise PluginLoadError(self.kind, plugin.name, plugin.distribution, reason) from error
        if not (isinstance(component, type) and issubclass(component, self._base)):
            reason = f"{plugin.target} is not a subclass of {self._base.__name__}"
            raise PluginLoadError(self.kind, plugin.name, plugin.distribution, reason)
        missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
        if missing:
            reason = f"{plugin.target} does not define {missing}"
            raise PluginLoadError(self.kind, plugin.name, plugin.distribution, reason)
        return component

    @staticmethod
    def _plugin(entry_point: EntryPoint) -> Plugin:
        dist = entry_point.dist
        origin = Origin() if dist is None else _origin(dist)
        return Plugin(name=entry_point.name, target=entry_point.value, origin=origin)


def _origin(dist: Distribution) -> Origin:
    """Returns the name and version of *dist*; empty where an interrupted uninstall left none."""
    metadata = dist.metadata
    fields = [metadata[key] for key in ("Name", "Version") if key in metadata]
    return Origin(*fields) if len(fields) == 2 else Origin()
