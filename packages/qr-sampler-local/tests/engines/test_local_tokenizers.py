# SPDX-License-Identifier: Apache-2.0
"""Chat templates and spellings, on tokenizers that are made up."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from typing import Any

import pytest

from qr_sampler.errors import ConfigError
from qr_sampler_local.engines.tokenizers import chat_tokens, spelled


class TemplateError(Exception):
    """What jinja2 raises."""


class Tokenizer:
    """Every character is a token; from 128 on they are parts of characters."""

    chat_template: str | None = "a template"

    def apply_chat_template(
        self,
        messages: Sequence[Any],
        *,
        add_generation_prompt: bool,
        tokenize: bool,
        return_dict: bool,
    ) -> list[int]:
        assert add_generation_prompt
        assert tokenize
        assert not return_dict
        if messages[0]["role"] != "user":
            raise TemplateError("conversations begin with the user")
        text = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return [ord(character) for character in text + "<assistant>"]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(token_id) if token_id < 128 else "\ufffd" for token_id in ids)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"<{token_id}>" for token_id in ids]


@pytest.fixture(autouse=True)
def _jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("jinja2")
    vars(module)["TemplateError"] = TemplateError
    monkeypatch.setitem(sys.modules, "jinja2", module)


def test_a_conversation_ends_where_the_reply_begins() -> None:
    tokens = chat_tokens(Tokenizer(), [{"role": "user", "content": "Hi"}])
    assert "".join(map(chr, tokens)) == "<user>Hi<assistant>"


def test_a_model_without_a_template_is_told_from_one_that_refuses() -> None:
    plain = Tokenizer()
    plain.chat_template = None
    with pytest.raises(ConfigError, match=r"no chat template.*qr-sampler generate"):
        chat_tokens(plain, [{"role": "user", "content": "Hi"}])
    with pytest.raises(ConfigError, match="refuses the messages: conversations begin with"):
        chat_tokens(Tokenizer(), [{"role": "system", "content": "Be brief."}])


def test_a_part_of_a_character_is_spelled_as_in_the_vocabulary() -> None:
    assert spelled(Tokenizer(), 65) == "A"
    assert spelled(Tokenizer(), 200) == "<200>"
