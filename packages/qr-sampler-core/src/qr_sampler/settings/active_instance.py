# SPDX-License-Identifier: Apache-2.0
"""The values of the named source that is being configured, for whichever settings it reads.

A kind of source reads its own settings, by ``load()``, whatever it is called. So the values of an
instance are left here for as long as it is being configured, and
:class:`~qr_sampler.settings.environment.EnvironmentSettings` takes them before the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from qr_sampler.errors import ConfigError, shown

__all__ = ["Declaration", "TakenValues", "active_values", "values_of"]

_MOST_NAMED: Final = 20
"""Number of settings that an error message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What an operator says of one named source."""

    name: str
    """Its name, in requests and in records."""
    kind: str
    """Name of the kind of source that it is one of."""
    location: str = ""
    """Where its device is, empty if that is left to its kind or its :attr:`values`."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its kind, by the lower-case names of their fields."""
    declared_in: str
    """The variable or the file that says so."""

    @property
    def title(self) -> str:
        """Where it is declared, for an error message."""
        return f"{self.declared_in}: {self.name}"


class TakenValues:
    """The values of one instance, and which settings have taken them.

    Settings of the core are those of a deployment, not of a source; they take none.

    Args:
        declaration: What the operator says of it.
    """

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self._fields: set[str] = set()
        self._taken: set[str] = set()
        self._found = False

    def values_for(self, model: type[BaseModel], location: str | None) -> dict[str, Any]:
        """Returns the values of those fields of *model* that the operator sets.

        Args:
            model: The settings.
            location: The field that says where the device is, if there is one.
        """
        if model.__module__.partition(".")[0] == __name__.partition(".")[0]:
            return {}
        own = {**self.declaration.values, **self._placed(location)}
        chosen = {name: value for name, value in own.items() if name in model.model_fields}
        self._fields |= set(model.model_fields)
        self._taken |= set(chosen)
        return chosen

    def names_in(self, model: type[BaseModel], location: str | None) -> dict[str, str]:
        """Returns what users call the fields that :meth:`values_for` has values of, by name."""
        title = self.declaration.title
        return {name: f"{title}: {name}" for name in self.values_for(model, location)}

    def refuse_the_rest(self) -> None:
        """Refuses what no settings have taken, once the instance has been configured.

        Raises:
            ConfigError: Naming it and what may be meant.
        """
        declaration = self.declaration
        if declaration.location and not self._found:
            raise ConfigError(
                f"{declaration.title}: the kind {declaration.kind!r} has no setting that "
                f"{shown(declaration.location)} could be; leave it out of the declaration"
            )
        for name in declaration.values:
            if name not in self._taken:
                raise ConfigError(
                    f"{declaration.title}: {shown(name)} is not a setting of the kind "
                    f"{declaration.kind!r}; {self._advice(name)}"
                )

    def _placed(self, location: str | None) -> dict[str, Any]:
        if not self.declaration.location or location is None:
            return {}
        self._found = True
        return {location: self.declaration.location}

    def _advice(self, name: str) -> str:
        known = sorted(self._fields)
        if not known:
            return (
                "it reads no settings that a single source can have (EnvironmentSettings); remove "
                "it, or set the variables of the kind"
            )
        likely = difflib.get_close_matches(name, known, n=1)
        if likely:
            return f"did you mean {likely[0]!r}?"
        return f"choose among {', '.join(known[:_MOST_NAMED])}"


_ACTIVE: ContextVar[TakenValues | None] = ContextVar("active_instance", default=None)


def active_values() -> TakenValues | None:
    """Returns the values of the instance that this thread is configuring, if it is."""
    return _ACTIVE.get()


@contextmanager
def values_of(declaration: Declaration | None) -> Iterator[None]:
    """Has settings take the values of *declaration*; ``None`` leaves them to the environment.

    Raises:
        ConfigError: When no settings have taken one of the values.
    """
    values = None if declaration is None else TakenValues(declaration)
    token = _ACTIVE.set(values)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
    if values is not None:
        values.refuse_the_rest()
