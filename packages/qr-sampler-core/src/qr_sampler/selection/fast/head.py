# SPDX-License-Identifier: Apache-2.0
"""The leading tokens of a row without sorting it: column maxima, and the columns that matter.

A row is folded into columns of a few tokens each. A threshold that k column maxima reach is reached
by at least k tokens, and every token that reaches it lies in a column whose maximum does. So the
leading tokens are found by one pass for the maxima and a look into few columns.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from qr_sampler.arrays import Distances, IndexArray, Logits
from qr_sampler.selection.fast.ranked_tokens import rank_order

__all__ = [
    "COLUMN_HEIGHT",
    "GROUPS",
    "HEAD_COLUMNS",
    "LOWEST_LOGIT",
    "ColumnMaxima",
    "Head",
    "column_count",
    "column_maxima",
    "head_threshold",
    "leading_tokens",
    "ranked_head",
]

COLUMN_HEIGHT: Final = 16
"""Tokens per column."""

HEAD_COLUMNS: Final = 64
"""At least as many tokens are ranked."""

GROUPS: Final = 2 * HEAD_COLUMNS
"""Number of groups that column maxima are folded into. If the leading tokens are scattered,
the median of the group maxima is the GROUPS ln 2 = 89th largest logit, give or take ten."""

MOST_COLUMNS: Final = 4 * HEAD_COLUMNS
"""Where ties make more columns than these reach the threshold, it is of no use."""

LOWEST_LOGIT: Final = np.finfo(np.float32).min
"""The lowest that is finite."""

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
    return _folded(logits, column_count(logits.size), out)


def leading_tokens(logits: Logits, maxima: ColumnMaxima, maximum: np.float32) -> Head:
    """Returns the tokens that reach the threshold of the row.

    Ties can make them many. Where they fill more than MOST_COLUMNS columns, none is returned.

    Args:
        logits: Shape ``(V,)``, float32.
        maxima: Their column maxima.
        maximum: The largest of them, finite.
    """
    width = maxima.size
    if width <= HEAD_COLUMNS:
        return ranked_head(logits, np.arange(logits.size), maximum)
    threshold = head_threshold(maxima)
    chosen = np.flatnonzero(maxima >= threshold)
    if chosen.size > MOST_COLUMNS:
        return ranked_head(logits, chosen[:0], maximum)
    whole = logits.size // width
    columns = logits[: whole * width].reshape(whole, width).take(chosen, axis=1)
    line, place = np.divmod(np.flatnonzero(columns >= threshold), chosen.size)
    ids = chosen[place] + width * line
    rest = logits[whole * width :]
    if rest.size:
        ids = np.concatenate([ids, whole * width + np.flatnonzero(rest >= threshold)])
    return ranked_head(logits, ids, maximum)


def head_threshold(maxima: ColumnMaxima) -> np.float32:
    """Returns a finite number that at least HEAD_COLUMNS of the maxima reach, if so many can.

    Args:
        maxima: More than HEAD_COLUMNS column maxima.
    """
    groups = maxima if maxima.size <= GROUPS else _folded(maxima, GROUPS)
    place = groups.size - HEAD_COLUMNS
    threshold: np.float32 = np.partition(groups, place)[place]
    # If fewer tokens are unmasked than asked for, all of them are leading ones.
    return max(threshold, LOWEST_LOGIT)


def ranked_head(logits: Logits, ids: IndexArray, maximum: np.float32) -> Head:
    """Returns the tokens *ids* of one row in rank order.

    Args:
        logits: Shape ``(V,)``, float32.
        ids: Shape ``(N,)``, the N leading tokens in any order.
        maximum: The largest logit.
    """
    values = logits[ids]
    order = rank_order(values, ids)
    return Head(ids[order], values[order] - maximum)


def _folded(values: Logits, width: int, out: Logits | None = None) -> Logits:
    """Returns *width* maxima, of the values c, c + width, c + 2 width, ... each.

    Shapes ``(N,)`` with N at least *width*, and ``(width,)``.
    """
    whole = values.size // width
    maxima: Logits = np.maximum.reduce(values[: whole * width].reshape(whole, width), 0, out=out)
    rest = values[whole * width :]
    if rest.size:
        np.maximum(maxima[: rest.size], rest, out=maxima[: rest.size])
    return maxima
