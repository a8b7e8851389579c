# SPDX-License-Identifier: Apache-2.0
"""One reply: shown while it is made, and ended by Ctrl-C without a token too many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from qr_sampler_cli.chat.text_stream import TextStream
from qr_sampler_cli.terminal.signals import interruption
from qr_sampler_local.engines import EmittedToken, LocalEngine

__all__ = ["Reply", "Show", "make_reply"]

Show: TypeAlias = Callable[[str, EmittedToken], object]
"""Called with a piece of text and the token that has completed it."""


@dataclass(slots=True)
class Reply:
    """What was shown of a reply."""

    request_key: str
    """Names its request in the records."""
    text: str = ""
    """Its text."""
    tokens: list[int] = field(default_factory=list)
    """Its tokens, whether they have a text or only structure it."""
    interrupted: bool = False
    """Whether the user has ended it."""
    leave: bool = False
    """Whether the user has pressed Ctrl-C again meanwhile."""


def make_reply(
    reply: Reply,
    engine: LocalEngine,
    prompt: Sequence[int],
    options: Mapping[str, object],
    *,
    max_tokens: int,
    end: str,
    show: Show,
) -> None:
    """Has a reply generated and shown.

    The first Ctrl-C ends it with the token that is in the making: that one is shown and has its
    record, and what the engine has drawn beyond it is a discard. The second one interrupts the
    engine where it is.

    Args:
        reply: Receives what was shown, also when an error is raised half-way.
        engine: Generates.
        prompt: The tokens of the conversation.
        options: The ``qr_*`` options of the request.
        max_tokens: Most tokens.
        end: Text that ends the reply, too; empty if there is none.
        show: Shows a piece of text.
    """
    stream = TextStream(engine.decode, prompt)

    def hand_over(token: EmittedToken) -> None:
        reply.tokens.append(token.token_id)
        _append(reply, stream.add(token.token_id), token, show)
        if came() or (end and end in reply.text):
            raise KeyboardInterrupt

    with interruption() as came:
        try:
            engine.generate(
                [prompt],
                max_tokens=max_tokens,
                options=[{**options, "qr_request_key": reply.request_key}],
                on_token=hand_over,
            )
        except KeyboardInterrupt:
            # Engines return instead, but for an interrupt that hits them while they do that.
            reply.interrupted = not (end and end in reply.text)
        reply.interrupted |= came()
        reply.leave = came.count > 1
    if rest := stream.rest():
        _append(reply, rest, EmittedToken(0, len(reply.tokens) - 1, reply.tokens[-1]), show)


def _append(reply: Reply, text: str, token: EmittedToken, show: Show) -> None:
    if text:
        reply.text += text
        show(text, token)
