# SPDX-License-Identifier: Apache-2.0
"""How a command fails: its exit status and the one line that says why."""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import IntEnum
from importlib import import_module
from types import ModuleType
from typing import ParamSpec, TypeVar

import typer

from qr_sampler.errors import QRSamplerError

__all__ = ["EngineError", "ExitCode", "MissingPackageError", "import_package", "reports_errors"]

P = ParamSpec("P")
T = TypeVar("T")


class ExitCode(IntEnum):
    """What the exit status of a command means."""

    OK = 0
    """It did what was asked."""
    MISMATCH = 1
    """The records do not match the emitted tokens one to one."""
    ERROR = 2
    """It could not do what was asked; the reason is on standard error."""
    FALLBACK = 3
    """Tokens came from another source than the required one."""
    INTERRUPTED = 130
    """The user has ended it with Ctrl-C."""


class MissingPackageError(QRSamplerError, ImportError):
    """A command needs a package that is not installed or does not import."""


class EngineError(QRSamplerError, RuntimeError):
    """An engine did not start, or failed while generating."""


def import_package(name: str, *, needed_for: str, remedy: str) -> ModuleType:
    """Returns the module *name*, which only some commands need.

    Args:
        name: Module to import.
        needed_for: The command that cannot work without it.
        remedy: What to do when it is missing.

    Raises:
        MissingPackageError: When the module is absent, or present and broken.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise MissingPackageError(
                f"{needed_for} needs {name}, which is installed but lacks {error.name}; {remedy}"
            ) from error
        raise MissingPackageError(
            f"{needed_for} needs {name}, which is not installed; {remedy}"
        ) from error
    # A compiled package can fail in any way while it loads; the reason is passed on whole.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MissingPackageError(
            f"{needed_for} needs {name}, which is installed but fails to import ({reason}); "
            f"{remedy}"
        ) from error


def reports_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Returns *command* with every :class:`QRSamplerError` made a message and exit status 2.

    Control characters in the message are escaped: labels and files of others may be named in it.
    """

    @functools.wraps(command)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except QRSamplerError as error:
            from qr_sampler_cli.terminal.consoles import printable

            typer.echo(f"error: {printable(str(error))}", err=True)
            raise typer.Exit(ExitCode.ERROR) from error

    return reporting
