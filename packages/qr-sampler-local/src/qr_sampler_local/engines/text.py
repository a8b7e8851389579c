# SPDX-License-Identifier: Apache-2.0
"""The text of tokens that continue others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["continuation"]


class Decoder(Protocol):
    """What turns tokens into text, such as a :class:`~qr_sampler_local.engines.LocalEngine`."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens."""


def continuation(engine: Decoder, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """Returns the text that *tokens* add to that of *prompt*.

    Decoded by themselves, many tokenizers drop the space before the first word.

    Args:
        engine: Decodes tokens.
        prompt: The tokens before.
        tokens: The tokens that continue them.

    Examples:
        >>> class Words:
        ...     def decode(self, tokens):
        ...         return " ".join(["one", "two", "three"][token] for token in tokens)
        >>> continuation(Words(), [0], [1, 2])
        ' two three'
    """
    before = engine.decode(prompt)
    whole = engine.decode([*prompt, *tokens])
    # A character that the prompt has begun and the tokens end changes its end.
    return whole[len(before) :] if whole.startswith(before) else engine.decode(tokens)
