# SPDX-License-Identifier: Apache-2.0
"""What the user types, or a script writes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from qr_sampler.errors import ConfigError

__all__ = ["is_interactive", "lines_of_user"]

PROMPT: Final = "> "

LONGEST: Final = 1 << 20
"""Characters of a line from a file or a pipe; no model has room for so many."""


def is_interactive() -> bool:
    """Whether somebody sits at a keyboard."""
    # It is None where the shell has closed it.
    return sys.stdin is not None and sys.stdin.isatty()


def lines_of_user(
    in_front: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Iterator[str]:
    """Yields one line after the other until the input ends.

    At a terminal with a prompt, and with history and editing where Python has them.

    Args:
        in_front: Surrounds the reading of a line, so that standard output is the terminal then.

    Raises:
        ConfigError: When the input is not text, or a line is too long.
    """
    read = _ask if is_interactive() else _take
    if is_interactive():
        with contextlib.suppress(ImportError):  # Not on Windows, whose console edits by itself.
            import readline  # noqa: F401
    while True:
        try:
            with in_front():
                line = read()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise ConfigError(f"the input is not {error.encoding}: {error.reason}") from error
        yield line


def _ask() -> str:
    if sys.stdout.isatty():
        return input(PROMPT)
    # The replies go to a file, where prompts have no place.
    print(PROMPT, end="", file=sys.stderr, flush=True)
    return _take()


def _take() -> str:
    line = "" if sys.stdin is None else sys.stdin.readline(LONGEST + 1)
    if not line:
        raise EOFError
    if len(line) > LONGEST:
        raise ConfigError(f"a line of the input has more than {LONGEST} characters; shorten it")
    return line.rstrip("\n")
