# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, declared once as the fields of a dataclass."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

__all__ = ["with_options"]


def with_options(*groups: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Returns a decorator that passes an instance of each group to a command, before all else.

    Typer reads the options of a command from its signature. The decorated one has the command's
    other parameters, then a keyword for each field of *groups*.

    Args:
        groups: Dataclasses whose fields have ``Annotated`` types; no name is in two of them.
    """
    names = [[field.name for field in dataclasses.fields(group)] for group in groups]
    shared = [parameter for group in groups for parameter in _parameters(group)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_groups(**arguments: Any) -> None:
            made = [
                group(**{name: arguments.pop(name) for name in of_group})
                for group, of_group in zip(groups, names, strict=True)
            ]
            command(*made, **arguments)

        others = list(inspect.signature(command, eval_str=True).parameters.values())[len(groups) :]
        parameters = [*others, *shared]
        with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_groups.__annotations__ = {each.name: each.annotation for each in parameters}
        return with_groups

    return decorate


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if _is_required(field) else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING
