# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, declared once as the fields of a dataclass."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

__all__ = ["with_options"]


def with_options(group: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Returns a decorator that passes an instance of *group* as the first argument of a command.

    Typer reads the options of a command from its signature. The decorated one has the command's
    other parameters, then a keyword for each field of *group*.

    Args:
        group: A dataclass whose fields have defaults and ``Annotated`` types.
    """
    hints = get_type_hints(group, include_extras=True)
    defaults = {field.name: field.default for field in dataclasses.fields(group)}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_group(**arguments: Any) -> None:
            command(group(**{name: arguments.pop(name) for name in defaults}), **arguments)

        _, *others = inspect.signature(command, eval_str=True).parameters.values()
        shared = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name]
            )
            for name, default in defaults.items()
        ]
        parameters = [*others, *shared]
        with_group.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_group.__annotations__ = {each.name: each.annotation for each in parameters}
        return with_group

    return decorate
