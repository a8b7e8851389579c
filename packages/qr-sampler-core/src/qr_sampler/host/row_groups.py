# SPDX-License-Identifier: Apache-2.0
"""The rows of a step, and which of them share a draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from qr_sampler.host.sequence import TokenSequence
from qr_sampler.rows import Rows

__all__ = ["MOST_UNEQUAL", "RowGroup", "RowGroups", "StepRows"]

MOST_UNEQUAL: Final = 16
"""Largest block over smallest among the rows that share a draw."""


@dataclass(slots=True)
class StepRows:
    """The rows of one step that are to be decided. Lists have one entry per row."""

    lines: list[int] = field(default_factory=list)
    """Index among the rows of the logits."""
    sequences: list[TokenSequence] = field(default_factory=list)
    """The sequence that gets the token."""
    positions: list[int] = field(default_factory=list)
    """Index of the token in its sequence."""
    follows: list[int] | None = None
    """Index of the row that decides the token before it in this step, or -1; ``None`` if there is
    none for all rows."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that one draw decides."""

    source: str
    """Name of the source."""
    indices: list[int]
    """Which of the step's rows they are."""
    rows: Rows
    """Their parameters; the running means are not filled in."""

    def apart(self, sequences: Sequence[TokenSequence]) -> list[RowGroup]:
        """Returns a group for each sequence, the shortest blocks first; itself if it has but one.

        Args:
            sequences: The sequence of every row of the step.
        """
        offsets_by_sequence: dict[int, list[int]] = {}
        for offset, index in enumerate(self.indices):
            offsets_by_sequence.setdefault(id(sequences[index]), []).append(offset)
        if len(offsets_by_sequence) == 1:
            return [self]
        parts = [self._subset(offsets) for offsets in offsets_by_sequence.values()]
        return sorted(parts, key=lambda part: part.rows.parameters[0].sample_count)

    def _subset(self, offsets: list[int]) -> RowGroup:
        rows = self.rows.take(np.array(offsets))
        return RowGroup(self.source, [self.indices[offset] for offset in offsets], rows)


class RowGroups:
    """Groups rows by source and size of block, and keeps them while the batch stays the same.

    Rows whose blocks differ in size by more than a factor of ``MOST_UNEQUAL`` do not share a draw:
    a large one takes longer, is more often too late, and is refused where a small one is served.
    Sequences without entropy are in no group.

    Args:
        by_size: Whether sizes of blocks matter.
    """

    def __init__(self, *, by_size: bool = True) -> None:
        self._by_size = by_size
        self._sequences: list[TokenSequence] | None = None
        self._follows: list[int] | None = None
        self._groups: list[RowGroup] = []

    def of(self, step: StepRows) -> list[RowGroup]:
        """Returns the groups of a step."""
        # Sequences compare by identity, so this is cheap.
        if step.sequences != self._sequences or step.follows != self._follows:
            self._sequences = list(step.sequences)
            self._follows = step.follows
            self._groups = _grouped(step, by_size=self._by_size)
        return self._groups

    def forget(self) -> None:
        """Forces regrouping in the next step even if the batch is the same."""
        # Not an empty list: that is the batch of a step without rows.
        self._sequences = None


def _grouped(step: StepRows, *, by_size: bool) -> list[RowGroup]:
    by_source: dict[str, list[int]] = {}
    for index, sequence in enumerate(step.sequences):
        if not sequence.failure:
            by_source.setdefault(sequence.options.source, []).append(index)
    parameters = [sequence.options.parameters for sequence in step.sequences]
    rows = Rows(parameters, follows=step.follows)
    sizes = [own.sample_count if by_size else 0 for own in parameters]
    # All rows of a sequence have the same source and size, so the row that a row follows is in its
    # group.
    return [
        RowGroup(source, part, rows.take(np.array(part)))
        for source, indices in by_source.items()
        for part in _of_similar_size(indices, sizes)
    ]


def _of_similar_size(indices: list[int], sizes: Sequence[int]) -> list[list[int]]:
    """Returns *indices* in parts of similar size, in order; the smallest sizes first."""
    parts: list[list[int]] = []
    left = indices
    while left:
        largest = MOST_UNEQUAL * min(sizes[index] for index in left)
        parts.append([index for index in left if sizes[index] <= largest])
        left = [index for index in left if sizes[index] > largest]
    return parts
