# SPDX-License-Identifier: Apache-2.0
"""The leading tokens of a row without sorting it: column maxima, and the columns that matter.

A row is folded into columns of a few tokens each. The k-th largest column maximum is a threshold
that at least k tokens reach, and every token that reaches it lies in a column whose maximum does.
So the leading tokens are found by one pass for the maxima and a look into few columns.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from qr_sampler._typing import Distances, IndexArray, Logits
from qr_sampler.selection.ranked_tokens import rank_order

__all__ = [
    "HEAD_COLUMNS",
    "ColumnMaxima",
    "Head",
    "column_count",
    "column_maxima",
    "head_threshold",
    "leading_tokens",
    "ranked_head",
]

COLUMN_HEIGHT: Final = 32
"""Tokens per column."""

HEAD_COLUMNS: Final = 96
"""Number of columns to look into: at least as many tokens are ranked."""

ColumnMaxima = Logits
"""Shape ``(ceil(V / COLUMN_HEIGHT),)``; column c holds the tokens c, c + W, c + 2 W, ..."""


class Head(NamedTuple):
    """The leading tokens of a row in rank order."""

    token_ids: IndexArray
    """Shape ``(N,)``."""
    distance: Distances
    """Shape ``(N,)``, float32, distances to the maximum."""


def column_count(vocab_size: int) -> int:
    """Returns W = ceil(V / COLUMN_HEIGHT)."""
    return -(-vocab_size // COLUMN_HEIGHT)


def column_maxima(logits: Logits, out: ColumnMaxima | None = None) -> ColumnMaxima:
    """Returns the maximum of each column of one row; a NaN in the row makes a NaN here."""
    width = column_count(logits.size)
    whole = logits.size // width
    maxima: Logits = np.maximum.reduce(logits[: whole * width].reshape(whole, width), 0, out=out)
    rest = logits[whole * width :]
    np.maximum(maxima[: rest.size], rest, out=maxima[: rest.size])
    return maxima


def leading_tokens(logits: Logits, maxima: ColumnMaxima, columns: int = HEAD_COLUMNS) -> Head:
    """Returns the tokens that are at least as large as the *columns*-th largest column maximum.

    Ties can make them many. Where they fill more than twice *columns* columns, none is returned.

    Args:
        logits: Shape ``(V,)``, float32.
        maxima: Their column maxima, the largest of them finite.
        columns: How many columns to look into.
    """
    width = maxima.size
    if width <= columns:
        return ranked_head(logits, np.arange(logits.size), maxima.max())
    threshold = head_threshold(maxima, columns)
    chosen = np.flatnonzero(maxima >= threshold)
    if chosen.size > 2 * columns:
        chosen = chosen[:0]
    ids = (chosen + width * np.arange(COLUMN_HEIGHT)[:, np.newaxis]).ravel()
    if width * COLUMN_HEIGHT > logits.size:
        ids = ids[ids < logits.size]
    ids = ids[logits[ids] >= threshold]
    return ranked_head(logits, ids, maxima.max())


def head_threshold(maxima: ColumnMaxima, columns: int) -> np.float32:
    """Returns the *columns*-th largest maximum, or a finite number where that one is masked."""
    threshold: np.float32 = np.partition(maxima, maxima.size - columns)[maxima.size - columns]
    # If fewer tokens are unmasked than asked for, all of them are leading ones.
    return max(threshold, np.finfo(np.float32).min)


def ranked_head(logits: Logits, ids: IndexArray, maximum: np.float32) -> Head:
    """Returns the tokens *ids* of one row in rank order.

    Args:
        logits: Shape ``(V,)``, float32.
        ids: Shape ``(N,)``, the N leading tokens in any order.
        maximum: The largest logit.
    """
    ids = ids[rank_order(logits[ids], ids)]
    # The difference may be too large for float32; it is -inf then, as for a masked token.
    with np.errstate(over="ignore"):
        return Head(ids, logits[ids] - maximum)
