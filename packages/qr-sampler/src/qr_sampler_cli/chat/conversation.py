# SPDX-License-Identifier: Apache-2.0
"""A conversation: what was said, and what becomes of each line that the user types."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from qr_sampler.admission.overrides import resolve_request
from qr_sampler.errors import ConfigError, PluginError
from qr_sampler.settings import Settings
from qr_sampler_cli.chat.reply import Reply, make_reply
from qr_sampler_cli.chat.screen import Screen
from qr_sampler_cli.chat.shading import Shade, legend, shaded
from qr_sampler_cli.chat.slash_commands import HELP, SlashCommand, read_line
from qr_sampler_cli.chat.templates import ChatTemplate, Message
from qr_sampler_cli.engines.vllm import ORDINARY_FIELDS
from qr_sampler_cli.generation.run import check_options
from qr_sampler_cli.parsing.sampling_options import with_assignments
from qr_sampler_cli.terminal.consoles import printable
from qr_sampler_local.engines import EmittedToken, LocalEngine

__all__ = ["Conversation", "Manner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How replies are made and shown."""

    template: ChatTemplate
    """How the conversation is written for the model."""
    system: str | None
    """What the model is told before anything is said."""
    max_tokens: int
    """Most tokens of a reply."""
    options: dict[str, str]
    """The ``qr_*`` options of a reply."""
    shade: Shade
    """What the background of a token says."""


class Conversation:
    """What was said, and what is to be said next.

    Args:
        engine: Generates the replies.
        settings: The deployment's settings.
        manner: How they are made and shown.
        screen: Where.
        replies: Receives what was shown.
        interactive: Whether somebody sits at a keyboard, who learns of a mistake and goes on; a
            script ends at it.

    Raises:
        ConfigError: When the template cannot write a conversation.
    """

    def __init__(
        self,
        engine: LocalEngine,
        settings: Settings,
        manner: Manner,
        screen: Screen,
        replies: list[Reply],
        *,
        interactive: bool,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._manner = manner
        self._screen = screen
        self._replies = replies
        self._interactive = interactive
        self._stem = f"chat-{uuid.uuid4().hex[:12]}"
        self._messages = self._beginning()
        manner.template.encode(engine, [*self._messages, {"role": "user", "content": "?"}])
        self._say_whether_shaded()

    def hold(self, lines: Iterable[str]) -> bool:
        """Answers line after line; returns whether a script was interrupted.

        Raises:
            QRSamplerError: When a reply cannot be made or shown, or a script has made a mistake.
        """
        try:
            for line in lines:
                if not self._take(line):
                    break
        except KeyboardInterrupt:
            self._screen.remark("")
            return not self._interactive
        return not self._interactive and any(reply.interrupted for reply in self._replies)

    def _take(self, line: str) -> bool:
        """Does what a line says; returns whether the conversation goes on."""
        try:
            said = read_line(line)
            return self._obey(said) if isinstance(said, SlashCommand) else self._answer(said)
        except (ConfigError, PluginError) as error:
            if not self._interactive:
                raise
            self._screen.remark(f"error: {printable(str(error))}")
            return True

    def _answer(self, text: str) -> bool:
        if not text.strip():
            return True
        manner, asked = self._manner, [*self._messages, {"role": "user", "content": text}]
        prompt = manner.template.encode(self._engine, asked)
        stem = manner.options.get("qr_request_key", self._stem)
        reply = Reply(f"{stem}-{len(self._replies)}")
        self._replies.append(reply)
        try:
            make_reply(
                reply,
                self._engine,
                prompt,
                manner.options,
                max_tokens=manner.max_tokens,
                end=manner.template.end,
                show=self._show,
            )
        finally:
            if reply.tokens and not reply.text.endswith("\n"):
                self._screen.show("\n")
        content = (
            reply.text.partition(manner.template.end)[0] if manner.template.end else reply.text
        )
        self._messages = [*asked, {"role": "assistant", "content": content.strip()}]
        return not (reply.leave or (reply.interrupted and not self._interactive))

    def _show(self, text: str, token: EmittedToken) -> None:
        self._screen.show(shaded(text, token, self._manner.shade))

    def _obey(self, command: SlashCommand) -> bool:
        if command.name == "help":
            self._screen.remark(HELP)
        elif command.name == "reset":
            self._messages = self._beginning()
        elif command.name == "shade":
            self._shade(command.words)
        elif command.name == "options":
            self._options(command.words)
        return command.name != "quit"

    def _beginning(self) -> list[Message]:
        system = self._manner.system
        return [] if system is None else [{"role": "system", "content": system}]

    def _shade(self, words: tuple[str, ...]) -> None:
        other = Shade.NONE if self._manner.shade is Shade.U else Shade.U
        try:
            shade = Shade(" ".join(words)) if words else other
        except ValueError as error:
            raise ConfigError(f"/shade {' '.join(words)}: choose u or none") from error
        self._manner = dataclasses.replace(self._manner, shade=shade)
        self._say_whether_shaded()

    def _say_whether_shaded(self) -> None:
        if self._manner.shade is Shade.NONE:
            return
        if self._screen.colourful:
            self._screen.remark(legend())
        else:
            self._screen.remark(
                "tokens are not shaded: the output is no terminal with colours, or NO_COLOR is set"
            )

    def _options(self, words: tuple[str, ...]) -> None:
        changed = {**self._manner.options, **with_assignments({}, words, "/options")}
        check_options(self._settings, changed)
        self._manner = dataclasses.replace(self._manner, options=changed)
        engine = f"{self._engine.name} {self._engine.version} on {self._engine.device}"
        source = resolve_request(self._settings, changed, ORDINARY_FIELDS).source
        lines = [
            f"engine      {engine}",
            f"source      {source}",
            f"max tokens  {self._manner.max_tokens}",
            f"shade       {self._manner.shade.value}",
            *(f"{key}={value}" for key, value in changed.items()),
        ]
        self._screen.remark("\n".join(map(printable, lines)))
