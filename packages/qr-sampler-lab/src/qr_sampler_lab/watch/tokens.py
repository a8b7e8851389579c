# SPDX-License-Identifier: Apache-2.0
"""From token ids to text, where there is a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from qr_sampler_cli.failures import import_package
from qr_sampler_lab.tables.errors import TablesError

__all__ = ["Decoder", "as_numbers", "decoder_of"]

Decoder: TypeAlias = Callable[[int], str]
"""Returns the text of a token id."""


def as_numbers(token_id: int) -> str:
    """Returns a token id as a text of its own."""
    return f"{token_id} "


def decoder_of(model: Path) -> Decoder:
    """Returns what decodes the tokens of a model, from files of its directory only.

    Raises:
        MissingPackageError: When transformers is not installed.
        TablesError: When the directory has no tokenizer.
    """
    if not model.is_dir():
        raise TablesError(f"{model} is no directory; --model takes the directory of a model")
    transformers = import_package(
        "transformers",
        needed_for="watch --model",
        remedy="pip install transformers, or leave --model out to see token ids",
    )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(model), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise TablesError(f"{model} has no tokenizer that can be loaded: {reason}") from error

    def decoded(token_id: int) -> str:
        # The vocabulary of another model may be larger.
        try:
            return str(tokenizer.decode([token_id]))
        except (OverflowError, IndexError, TypeError):
            return as_numbers(token_id)

    return decoded
