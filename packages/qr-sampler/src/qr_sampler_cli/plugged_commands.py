# SPDX-License-Identifier: Apache-2.0
"""Commands that other packages add to ``qr-sampler``: entry points of ``qr_sampler.commands``.

The name of an entry point is that of the command; its value is a function that Typer makes a
command of, or a :class:`typer.Typer` with commands of its own.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from qr_sampler_cli.failures import MissingPackageError, reports_errors
from qr_sampler_cli.remedies import from_clone

__all__ = ["COMMANDS_GROUP", "CommandsOfAllPackages"]

COMMANDS_GROUP: Final = "qr_sampler.commands"
"""Group of the entry points."""

OF_THE_LABORATORY: Final = frozenset({"analyze", "anchor", "experiment", "export", "watch"})
"""Commands of qr-sampler-lab, for whoever types one without it."""


class CommandsOfAllPackages(TyperGroup):
    """The commands of this package, which always win, and those of others.

    A command that cannot be loaded is listed with the reason, and harms no other.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names of all commands."""
        own = super().list_commands(ctx)
        return [*own, *sorted(set(entry_points(group=COMMANDS_GROUP).names) - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the command of a name, or ``None``."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry in entry_points(group=COMMANDS_GROUP, name=cmd_name):
            return _loaded(entry)
        return _missing(cmd_name) if cmd_name in OF_THE_LABORATORY else None


def _loaded(entry: EntryPoint) -> Any:
    """Returns the command of an entry point, or one that says why there is none."""
    try:
        command = entry.load()
        if isinstance(command, typer.Typer):
            return get_command(command)
        if callable(command):
            return _command(entry.name, command)
    except (Exception, SystemExit) as error:  # Code of strangers: whatever it raises is reported.
        # The variable of an except clause is gone after it.
        reason = f"{type(error).__name__}: {error}"
        return _failing(entry.name, f"{entry.value} cannot be loaded: {reason}")
    return _failing(entry.name, f"{entry.value} is no command but {type(command).__name__}")


def _missing(name: str) -> Any:
    return _failing(
        name, f"`qr-sampler {name}` needs qr-sampler-lab; {from_clone('qr-sampler-lab')}"
    )


def _failing(name: str, reason: str) -> Any:
    """Returns a command that cannot do anything but say why, whatever its arguments."""

    @reports_errors
    def fail() -> None:
        raise MissingPackageError(reason)

    fail.__doc__ = f"Unavailable: {reason}"
    return _command(
        name, fail, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
    )


def _command(name: str, function: Any, **options: Any) -> Any:
    alone = typer.Typer(pretty_exceptions_show_locals=False)
    alone.command(name, **options)(function)
    return get_command(alone)
