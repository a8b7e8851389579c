# SPDX-License-Identifier: Apache-2.0
"""How a conversation becomes the tokens that a model continues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeAlias

from qr_sampler.errors import ConfigError
from qr_sampler_cli.failures import import_package
from qr_sampler_local.engines import LocalEngine

__all__ = ["ChatTemplate", "Message", "chat_template"]

Message: TypeAlias = dict[str, str]
"""What was said: ``role`` (``system``, ``user`` or ``assistant``) and ``content``."""

PLAIN: Final = "plain"

LARGEST_FILE: Final = 1 << 20
"""Bytes of a template; the largest of well-known models have some 20 KB."""

REMEDY: Final = (
    "give a template with --template FILE, or write the conversation out as text with "
    "--template plain"
)


class ChatTemplate(Protocol):
    """Writes conversations as tokens."""

    end: str
    """Text at which a reply is over although no token ended it; empty if there is none."""

    def encode(self, engine: LocalEngine, messages: Sequence[Message]) -> list[int]:
        """Returns the tokens up to where the next reply begins.

        Raises:
            ConfigError: When the conversation cannot be written.
        """


def chat_template(choice: str | None) -> ChatTemplate:
    """Returns the template that ``--template`` names.

    Args:
        choice: ``plain``, the path of a Jinja template, or ``None`` for the model's own.

    Raises:
        ConfigError: When the file cannot be read, or is no template.
    """
    if choice is None:
        return ModelTemplate()
    return PlainTemplate() if choice == PLAIN else FileTemplate(Path(choice))


class ModelTemplate:
    """The template that came with the model."""

    end = ""

    def encode(self, engine: LocalEngine, messages: Sequence[Message]) -> list[int]:
        """Returns the tokens of a conversation."""
        try:
            return engine.encode_chat(messages)
        except ConfigError as error:
            raise ConfigError(f"{error}; {REMEDY}") from error


class PlainTemplate:
    """The conversation as a play, for models that have only learnt to continue texts."""

    end = "\nUser:"

    def encode(self, engine: LocalEngine, messages: Sequence[Message]) -> list[int]:
        """Returns the tokens of a conversation."""
        return engine.encode("".join(map(_line, messages)) + "Assistant:")


def _line(message: Message) -> str:
    if message["role"] == "system":
        return f"{message['content']}\n\n"
    return f"{message['role'].capitalize()}: {message['content'].strip()}\n"


_NO_TOKENS: Final = dict.fromkeys(("bos_token", "eos_token"), "")


class FileTemplate:
    """A Jinja template, as models on the hub bring them: ``messages``, ``add_generation_prompt``.

    The tokens that begin texts are the engine's, so ``bos_token`` is empty.

    Args:
        path: The file.

    Raises:
        ConfigError: When it cannot be read, or is no template.
        MissingPackageError: When Jinja is not installed.
    """

    end = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jinja: Any = import_package(
            "jinja2.sandbox", needed_for="chat --template FILE", remedy="pip install jinja2"
        )
        environment = self._jinja.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        text = _read(path)
        try:
            self._template: Any = environment.from_string(text)
        except (*self._errors(), RecursionError) as error:
            raise ConfigError(f"--template {path}: no Jinja template: {error}") from error

    def encode(self, engine: LocalEngine, messages: Sequence[Message]) -> list[int]:
        """Returns the tokens of a conversation."""
        try:
            text = self._template.render(
                messages=list(messages), add_generation_prompt=True, **_NO_TOKENS
            )
        # Expressions of a template can raise whatever Python raises for them.
        except (
            *self._errors(), ArithmeticError, LookupError, RecursionError, TypeError, ValueError
        ) as error:  # fmt: skip
            raise ConfigError(f"--template {self._path}: {error}") from error
        return engine.encode(text)

    def _errors(self) -> tuple[Any, ...]:
        exceptions: Any = import_package(
            "jinja2.exceptions", needed_for="chat --template FILE", remedy="pip install jinja2"
        )
        return (exceptions.TemplateError,)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(
            f"--template {path}: cannot read it ({error.strerror}); name a Jinja template, or "
            f"{PLAIN!r}"
        ) from error
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"--template {path}: more than {LARGEST_FILE} bytes are no template")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--template {path}: not UTF-8: {error}") from error


def _refuse(message: object) -> NoReturn:
    """Raises what a template calls ``raise_exception`` with."""
    raise ValueError(f"refuses the conversation: {message}")
