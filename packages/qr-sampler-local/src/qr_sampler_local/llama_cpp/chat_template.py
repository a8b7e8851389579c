# SPDX-License-Identifier: Apache-2.0
"""A conversation as the text that a model's own template makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qr_sampler import ConfigError
from qr_sampler_local.llama_cpp.vocabulary import Vocabulary

__all__ = ["chat_prompt"]

TEMPLATE: Final = "tokenizer.chat_template"
"""Where a GGUF file has it."""


def chat_prompt(
    llama: Any, vocabulary: Vocabulary, messages: Sequence[Mapping[str, str]]
) -> tuple[str, bool]:
    """Returns the text of a conversation, and whether it has the token that begins texts.

    Args:
        llama: A ``llama_cpp.Llama``.
        vocabulary: Its tokens.
        messages: Each with ``role`` and ``content``.

    Raises:
        ConfigError: When the model has no template, or its template refuses the messages.
    """
    from jinja2 import TemplateError
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    template = llama.metadata.get(TEMPLATE)
    if not template:
        raise ConfigError(
            f"{llama.model_path} has no chat template ({TEMPLATE}); continue a text instead, or "
            "take the file of a model that was tuned for conversations"
        )
    try:
        formatter = Jinja2ChatFormatter(
            template=template,
            eos_token=vocabulary.entry(llama.token_eos()),
            bos_token=vocabulary.entry(llama.token_bos()),
        )
        response = formatter(messages=[dict(message) for message in messages])
    # llama-cpp-python raises ValueError where a template raises an exception of its own.
    except (TemplateError, ValueError) as error:
        raise ConfigError(f"the chat template of {llama.model_path} fails: {error}") from error
    return response.prompt, response.added_special
