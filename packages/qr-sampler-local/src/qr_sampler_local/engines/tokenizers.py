# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of the family of Transformers, which vLLM, MLX-LM and Transformers itself use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from qr_sampler.errors import ConfigError

__all__ = ["chat_tokens", "spelled"]

NO_TEMPLATE: Final = (
    "the model has no chat template, so it was not trained to converse; choose a model that was "
    "(often called 'instruct' or 'chat'), or continue plain text with: qr-sampler generate"
)


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
