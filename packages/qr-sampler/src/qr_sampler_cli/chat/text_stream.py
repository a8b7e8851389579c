# SPDX-License-Identifier: Apache-2.0
"""The text of a reply, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["TextStream"]

CONTEXT: Final = 6
"""Tokens before those that are being decoded: what stands before a token decides its space."""

INCOMPLETE: Final = "\ufffd"
"""What decoders put in the place of a character that is not whole."""

LONGEST: Final = 4
"""Bytes of the longest character in UTF-8: no more tokens can be waiting for its end."""


class TextStream:
    """Turns tokens into pieces of text, each as soon as its last character is whole.

    Every token decodes a few others with it, not the whole reply, so that a long one stays fast.

    Args:
        decode: Returns the text of tokens.
        prompt: The tokens before the reply.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        self._decode = decode
        self._shown = list(prompt[-CONTEXT:])
        self._waiting: list[int] = []

    def add(self, token_id: int) -> str:
        """Returns the text that a token completes, empty while a character is not whole."""
        self._waiting.append(token_id)
        text = self._text()
        if text.endswith(INCOMPLETE) and len(self._waiting) < LONGEST:
            return ""
        self._settle()
        return text

    def rest(self) -> str:
        """Returns the text of tokens whose last character the reply has left unfinished."""
        text = self._text() if self._waiting else ""
        self._settle()
        return text

    def _text(self) -> str:
        before = self._decode(self._shown)
        whole = self._decode([*self._shown, *self._waiting])
        return whole[len(before) :] if whole.startswith(before) else self._decode(self._waiting)

    def _settle(self) -> None:
        self._shown = [*self._shown, *self._waiting][-CONTEXT:]
        self._waiting = []
