# SPDX-License-Identifier: Apache-2.0
"""The prompt of each row of a batch, without the padding that makes them equally long."""

from __future__ import annotations

from typing import Any

__all__ = ["masked_prompts", "stripped_prompts"]


def masked_prompts(input_ids: Any, attention_mask: Any) -> list[list[int]]:
    """Returns the tokens that the model attends to.

    Args:
        input_ids: Shape ``(B, L)``.
        attention_mask: The same shape, 0 where there is padding; ``None``, or of any other shape,
            if nothing is known of padding.
    """
    rows: list[list[int]] = input_ids.tolist()
    if attention_mask is None or attention_mask.shape != input_ids.shape:
        return rows
    return [
        [token for token, seen in zip(row, mask, strict=True) if seen]
        for row, mask in zip(rows, attention_mask.tolist(), strict=True)
    ]


def stripped_prompts(input_ids: Any, pad_token: int | None) -> list[list[int]]:
    """Returns the rows without the padding tokens that they begin with.

    For whoever does not see the mask. A prompt that begins with the padding token itself loses it.

    Args:
        input_ids: Shape ``(B, L)``.
        pad_token: The token that fills rows up; ``None`` if there is none.
    """
    return [_stripped(row, pad_token) for row in input_ids.tolist()]


def _stripped(row: list[int], pad_token: int | None) -> list[int]:
    begin = 0
    while begin < len(row) and row[begin] == pad_token:
        begin += 1
    return row[begin:]
