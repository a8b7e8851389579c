# SPDX-License-Identifier: Apache-2.0
"""Several sources of one kind, each with a name of its own.

An instance is of a subclass of its kind that has nothing but the name: whatever the kind does with
its name, in draws, errors and threads, it does with that of the instance, and no call of it passes
through anything else.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import new_class
from typing import Any, Final

from qr_sampler.components.registry import Registry
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import ConfigError, shown
from qr_sampler.settings import END_REQUEST, RAISE_ERROR
from qr_sampler.settings.active_instance import Declaration
from qr_sampler.settings.source_declarations import declarations

__all__ = ["declared_sources", "named_class", "renamed"]

_MODES: Final = (RAISE_ERROR, END_REQUEST)


def declared_sources(kinds: Registry[EntropySource]) -> Mapping[str, Declaration]:
    """Returns the named sources of this process, all of them of a kind that is installed.

    Args:
        kinds: The installed kinds; read from metadata, and only if a source is declared.

    Raises:
        ConfigError: When a declaration is malformed, or its name or kind cannot be used.
    """
    declared = declarations()
    if not declared:
        return declared
    installed = kinds.names()
    for one in declared.values():
        if one.name in installed or one.name in _MODES:
            taken = "the mode of a fallback" if one.name in _MODES else "a kind of source"
            raise ConfigError(
                f"{one.title}: that is the name of {taken}; choose another one, for example "
                f"'{one.name}_1'"
            )
        if one.kind not in installed:
            raise ConfigError(
                f"{one.title}: no kind of source is called {shown(one.kind)}; "
                f"{_advice(one.kind, installed)}"
            )
    return declared


def named_class(kind: type[EntropySource], name: str) -> type[EntropySource]:
    """Returns a subclass of *kind* whose instances are called *name*, whatever they say."""
    return new_class(
        kind.__name__,
        (kind,),
        exec_body=lambda body: body.update(
            {
                "name": _GivenName(name),
                "__doc__": kind.__doc__,
                "__module__": kind.__module__,
                "__qualname__": kind.__qualname__,
                "__slots__": (),
            }
        ),
    )


def renamed(source: EntropySource, name: str) -> EntropySource:
    """Returns *source* under another name; for a kind that constructs its own class by name.

    Raises:
        TypeError: When its class does not allow that.
        ValueError: When it has the name of another instance.
    """
    if source.name == name:
        return source
    if isinstance(vars(type(source)).get("name"), _GivenName):
        raise ValueError(
            f"{source.name!r} and {name!r} would be the same source: from_environment() returns "
            "one that it has returned before"
        )
    source.__class__ = named_class(type(source), name)
    return source


class _GivenName:
    """The name of an instance; what it assigns to it is dropped."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, source: object, owner: type | None = None) -> str:
        return self._name

    def __set__(self, source: object, value: Any) -> None:
        return


def _advice(kind: str, installed: tuple[str, ...]) -> str:
    likely = difflib.get_close_matches(kind, installed, n=1)
    if likely:
        return f"did you mean {likely[0]!r}?"
    return f"installed are {', '.join(installed) or 'none'}; install the package that has it"
