# SPDX-License-Identifier: Apache-2.0
"""The leading tokens of a row as compiled loops; see :mod:`qr_sampler.selection.fast.head`."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.selection.fast.head import GROUPS, HEAD_COLUMNS, LOWEST_LOGIT
from qr_sampler_accel.host.arithmetic.compiler import compiled

__all__ = ["MOST_LEADING", "fold", "leading_tokens", "rank"]

MOST_LEADING: Final = 8 * HEAD_COLUMNS
"""Where ties make more leading tokens than these, none is returned."""

SHELL_GAPS: Final = (301, 132, 57, 23, 10, 4, 1)
"""Ciura (2001)."""


@compiled
def fold(logits, maxima):  # type: ignore[no-untyped-def]
    """Writes the column maxima of a row and returns the largest logit, NaN if there is one."""
    width = maxima.size
    strange = 0
    for start in range(0, logits.size, width):
        piece = logits[start : start + width]
        if not start:
            for j in range(width):
                maxima[j] = piece[j]
        for j in range(piece.size):
            maxima[j] = max(maxima[j], piece[j])
            strange += piece[j] != piece[j]
    largest = maxima[0]
    for j in range(1, width):
        largest = max(largest, maxima[j])
    return np.float32(np.nan) if strange else largest


@compiled
def _threshold(maxima, groups):  # type: ignore[no-untyped-def]
    """Returns what ``head_threshold`` returns; *groups* is working memory."""
    for j in range(GROUPS):
        groups[j] = maxima[j]
    for start in range(GROUPS, maxima.size, GROUPS):
        piece = maxima[start : start + GROUPS]
        for j in range(piece.size):
            groups[j] = max(groups[j], piece[j])
    # Sorted by insertion, largest first: they are few.
    for i in range(1, GROUPS):
        value, place = groups[i], i
        while place and groups[place - 1] < value:
            groups[place] = groups[place - 1]
            place -= 1
        groups[place] = value
    return max(groups[HEAD_COLUMNS - 1], LOWEST_LOGIT)


@compiled
def leading_tokens(logits, maximum, maxima, groups, ids, distance):  # type: ignore[no-untyped-def]
    """Writes the leading tokens in rank order with their distances; returns how many they are.

    0 if they are more than fit in.

    Args:
        logits: Shape ``(V,)``, a row of more than GROUPS columns.
        maximum: The largest logit.
        maxima: Its column maxima.
        groups: Working memory. Shape ``(GROUPS,)``.
        ids: Receives the tokens.
        distance: Receives their distances, of the same shape.
    """
    threshold = _threshold(maxima, groups)
    width, count = maxima.size, 0
    for column in range(width):
        if maxima[column] >= threshold:
            for token in range(column, logits.size, width):
                if logits[token] >= threshold:
                    if count == ids.size:
                        return 0
                    ids[count] = token
                    count += 1
    rank(logits, ids, count)
    for i in range(count):
        distance[i] = logits[ids[i]] - maximum
    return count


@compiled
def rank(logits, ids, count):  # type: ignore[no-untyped-def]
    """Sorts the first *count* of *ids* by descending logit, ties by id (Shell 1959)."""
    for gap in SHELL_GAPS:
        for i in range(gap, count):
            token, logit = ids[i], logits[ids[i]]
            place = i
            while place >= gap:
                other = ids[place - gap]
                if logits[other] > logit or (logits[other] == logit and other < token):
                    break
                ids[place] = other
                place -= gap
            ids[place] = token
