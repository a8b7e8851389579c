# SPDX-License-Identifier: Apache-2.0
"""Lines that are no messages but say something about the conversation: ``/reset`` and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qr_sampler.errors import ConfigError

__all__ = ["HELP", "SlashCommand", "read_line"]

COMMANDS: Final[Mapping[str, str]] = {
    "help": "what can be typed",
    "options": "the options of the next replies; with QR_KEY=VALUE ..., changes them",
    "quit": "end the conversation, as Ctrl-D does",
    "reset": "forget the conversation, but for the system prompt",
    "shade": "shade tokens by u, or stop it: /shade u, /shade none",
}

HELP: Final = "\n".join(
    [
        *(f"/{name:<8} {meaning}" for name, meaning in COMMANDS.items()),
        "//text    a message that begins with a slash",
        "Ctrl-C    end the reply; again, the conversation",
    ]
)


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """A command and what follows it."""

    name: str
    """Its name, without the slash."""
    words: tuple[str, ...]
    """The words behind it."""


def read_line(line: str) -> SlashCommand | str:
    """Returns what a line says: a command, or the text of a message.

    Raises:
        ConfigError: When there is no such command.

    Examples:
        >>> read_line("/shade u")
        SlashCommand(name='shade', words=('u',))
        >>> read_line("//etc is a folder")
        '/etc is a folder'
    """
    if not line.startswith("/"):
        return line
    if line.startswith("//"):
        return line[1:]
    name, *words = line[1:].split() or [""]
    if name not in COMMANDS:
        names = ", ".join(f"/{known}" for known in COMMANDS)
        raise ConfigError(
            f"/{name}: there is no such command; there are {names}, and // begins a message with "
            "a slash"
        )
    return SlashCommand(name, tuple(words))
