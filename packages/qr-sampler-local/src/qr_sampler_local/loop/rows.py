# SPDX-License-Identifier: Apache-2.0
"""Whether what a loop passes fits together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qr_sampler import ConfigError
from qr_sampler.errors import shown

if TYPE_CHECKING:
    from qr_sampler_local.loop.sequence import LocalSequence

__all__ = ["check_rows", "token_ids_of"]


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
        if sequence.owner is not owner:
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
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    array = np.array(listed)
    if array.size == 0:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu" or int(array.min()) < 0:
        raise ConfigError(f"{name}={shown(listed)}: expected token ids, whole numbers from 0 on")
    ids: list[int] = array.tolist()
    return ids
