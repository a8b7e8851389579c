# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of the family of Transformers, which vLLM, MLX-LM and Transformers itself use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from qr_sampler.errors import ConfigError

__all__ = ["TokenizedEngine", "chat_tokens", "spelled"]

NO_TEMPLATE: Final = (
    "the model has no chat template, so it was not trained to converse; choose a model that was "
    "(often called 'instruct' or 'chat'), or continue plain text with: qr-sampler generate"
)


class TokenizedEngine(ABC):
    """What a tokenizer of this family does of a :class:`~qr_sampler_local.engines.LocalEngine`."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a text to continue, with those that the model begins texts with."""
        return [int(token) for token in self.tokenizer.encode(text)]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the tokens of a conversation, up to where the model's next reply begins.

        Raises:
            ConfigError: When the model has no chat template, or its template refuses the messages.
        """
        return chat_tokens(self.tokenizer, messages)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without those that only structure it."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def spell(self, token_id: int) -> str:
        """Returns the text of one token, or its entry in the vocabulary if that is no text."""
        return spelled(self.tokenizer, token_id)


def chat_tokens(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Returns the tokens of a conversation, up to where the model's next reply begins.

    Args:
        tokenizer: Has ``chat_template`` and ``apply_chat_template``.
        messages: Each with ``role`` and ``content``.

    Raises:
        ConfigError: When it has no chat template, or its template refuses the messages.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(NO_TEMPLATE)
    refusals = (ValueError, import_module("jinja2").TemplateError)
    try:
        tokens = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
    except refusals as error:
        raise ConfigError(f"the model's chat template refuses the messages: {error}") from error
    return [int(token) for token in tokens]


def spelled(tokenizer: Any, token_id: int) -> str:
    """Returns the text of one token, or its entry in the vocabulary if that is no whole text.

    Args:
        tokenizer: Has ``decode`` and ``convert_ids_to_tokens``.
        token_id: The token.
    """
    text = str(tokenizer.decode([token_id]))
    if "\ufffd" not in text:
        return text
    return str(tokenizer.convert_ids_to_tokens([token_id])[0])
