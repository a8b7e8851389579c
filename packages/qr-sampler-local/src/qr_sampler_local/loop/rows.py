# SPDX-License-Identifier: Apache-2.0
"""Whether what a loop passes fits together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qr_sampler import ConfigError
from qr_sampler.errors import shown

if TYPE_CHECKING:
    from qr_sampler_local.loop.sequence import LocalSequence

__all__ = ["at_least_one", "check_json_ready", "check_rows", "request_keys", "token_ids_of"]


def check_rows(
    logits: Any, sequences: Sequence[LocalSequence], owner: object, vocab_size: int | None
) -> None:
    """Checks the rows of a step.

    Args:
        logits: Shape ``(B, V)``.
        sequences: Whose the rows are.
        owner: The sampler whose sequences they have to be.
        vocab_size: The number of columns to expect, if that is known.

    Raises:
        ValueError: When *logits* and *sequences* do not fit each other or the sampler.
    """
    rows, columns = logits.shape
    if rows != len(sequences):
        raise ValueError(
            f"logits of shape {(rows, columns)} for {len(sequences)} sequences; pass one row for "
            "each of them, in their order"
        )
    if vocab_size is not None and columns != vocab_size:
        raise ValueError(
            f"logits of shape {(rows, columns)} for a vocabulary of {vocab_size} tokens; pass the "
            "logits of that model"
        )
    for sequence in sequences:
        if getattr(sequence, "owner", None) is not owner:
            raise ValueError(f"{sequence!r} is of another sampler; step it with that one")
        if not sequence.end_token < columns:
            raise ValueError(
                f"logits of shape {(rows, columns)} have no token {sequence.end_token}, which ends "
                f"{sequence!r}; pass the logits and the end tokens of the same model"
            )
    if len(set(map(id, sequences))) < rows:
        raise ValueError("a sequence is in two rows of the step; a step decides one token of each")


def token_ids_of(name: str, values: Any) -> list[int]:
    """Returns token ids as a list.

    Args:
        name: What the caller calls them.
        values: Any sequence or array of integers, of NumPy, torch or MLX.

    Raises:
        ConfigError: When they are something else.
    """
    listed = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(listed, Iterable) and not isinstance(listed, (str, bytes)):
        ids = list(listed)
        if all(isinstance(each, (int, np.integer)) and each >= 0 for each in ids):
            return [int(each) for each in ids]
    raise ConfigError(f"{name}={shown(listed)}: expected token ids, whole numbers from 0 on")


def at_least_one(name: str, value: Any) -> int | None:
    """Returns a number of tokens or steps; ``None`` stands for no limit.

    Raises:
        ConfigError: When it is no whole number, or less than 1.
    """
    if value is None:
        return None
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name}={shown(value)}: expected a whole number from 1 on")
    return int(value)


def request_keys(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a sequence as the keys of a request.

    Raises:
        ConfigError: When one is given with and without the prefix.
    """
    keys: dict[str, Any] = {}
    for name, value in options.items():
        key = name if name.startswith("qr_") else f"qr_{name}"
        if key in keys:
            raise ConfigError(f"{key}: given with the prefix and without it; pass one of them")
        keys[key] = value
    return keys


def check_json_ready(name: str, value: Any) -> None:
    """Checks what goes into records as it is.

    Raises:
        ConfigError: When JSON cannot hold it.
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{name}: {error}; pass what JSON can hold: text, finite numbers, lists and mappings"
        ) from None
