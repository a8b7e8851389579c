# SPDX-License-Identifier: Apache-2.0
"""Where output goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final, TextIO

from rich.console import Console, RenderableType

from qr_sampler.errors import ConfigError

__all__ = [
    "check_output",
    "console_on",
    "printable",
    "progress_console",
    "result_console",
    "stdout_reserved",
    "unpadded",
]

PLAIN_WIDTH: Final = 200
"""Columns of output to a file or a pipe, where there is no window to fit into."""


def result_console() -> Console:
    """Returns a console on standard output; plain and wide when that is not a terminal."""
    return _console(Console(markup=False, highlight=False, emoji=False))


def progress_console() -> Console:
    """Returns a console on standard error."""
    return _console(Console(stderr=True, markup=False, highlight=False, emoji=False))


def console_on(file: TextIO) -> Console:
    """Returns a console on a file that stays where it is, whatever standard output becomes.

    Printing raises ``BrokenPipeError`` when nobody reads any more.
    """
    return _console(_FaithfulConsole(file=file, markup=False, highlight=False, emoji=False))


class _FaithfulConsole(Console):
    """Leaves a broken pipe to the caller; Rich would silence standard output and exit with 1."""

    def on_broken_pipe(self) -> None:
        # Rich calls this while it handles the error.
        raise


def _console(console: Console) -> Console:
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PLAIN_WIDTH
    return console


def unpadded(console: Console, shown: RenderableType) -> str:
    """Returns what *console* would print, without the spaces that tables are padded with.

    They are a nuisance in a file.
    """
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def printable(text: str) -> str:
    """Returns *text* with control characters other than newline and tab written as escapes.

    Text from a model or from a third-party package could otherwise steer the terminal.
    """
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]
        for character in text
    )


def check_output() -> None:
    """Checks that there is a standard output.

    Raises:
        ConfigError: When it was closed before this process began.
    """
    if sys.stdout is None:
        raise ConfigError("standard output is closed; lead it to a terminal, a file or a pipe")


@contextlib.contextmanager
def stdout_reserved() -> Iterator[None]:
    """Redirects to standard error whatever the enclosed code prints, natively or from Python.

    Engines and plugins print banners; standard output must contain nothing but results.
    """
    check_output()
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
