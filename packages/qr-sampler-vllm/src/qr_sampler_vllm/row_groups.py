# SPDX-License-Identifier: Apache-2.0
"""The rows of a step, and which of them share a draw."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qr_sampler import Rows
from qr_sampler_vllm.token_sequence import TokenSequence

__all__ = ["RowGroup", "RowGroups", "StepRows"]


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


class RowGroups:
    """Groups rows by source, and keeps the groups while the batch stays the same.

    Sequences for which no entropy can be had are in no group.
    """

    def __init__(self) -> None:
        self._sequences: list[TokenSequence] = []
        self._follows: list[int] | None = None
        self._groups: list[RowGroup] = []

    def of(self, step: StepRows) -> list[RowGroup]:
        """Returns the groups of a step."""
        # Sequences compare by identity, so this is cheap.
        if step.sequences != self._sequences or step.follows != self._follows:
            self._sequences = list(step.sequences)
            self._follows = step.follows
            self._groups = _grouped(step)
        return self._groups

    def forget(self) -> None:
        """Groups anew in the next step, although the batch may be the same."""
        self._sequences = []


def _grouped(step: StepRows) -> list[RowGroup]:
    found: dict[str, list[int]] = {}
    for index, sequence in enumerate(step.sequences):
        if not sequence.failure:
            found.setdefault(sequence.options.source, []).append(index)
    rows = Rows([each.options.parameters for each in step.sequences], follows=step.follows)
    # The rows of one sequence have one source, so that whom a row follows is in the same group.
    return [
        RowGroup(source, indices, rows.take(np.array(indices))) for source, indices in found.items()
    ]
