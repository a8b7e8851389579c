# SPDX-License-Identifier: Apache-2.0
"""Sequences that left the batch unfinished: preempted ones return, aborted ones do not."""

from __future__ import annotations

from collections.abc import Sequence

from qr_sampler.admission.overrides import RequestOptions
from qr_sampler.host.sequence import TokenSequence
from qr_sampler.records.entries import Entry

__all__ = ["DepartedSequences"]


class DepartedSequences:
    """Keeps unfinished sequences in case the engine resumes them.

    For engines that do not identify the sequence they resume but provide its tokens so far:
    sequences with the same options and the same tokens are interchangeable. All of their tokens
    have records, so that nothing but its end is to be recorded when a sequence is forgotten.

    Args:
        capacity: Number of sequences to keep. No more can be waiting to be resumed; older ones
            were aborted.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._sequences: list[TokenSequence] = []

    def add(self, sequence: TokenSequence) -> list[Entry]:
        """Stores a sequence that left the batch.

        Returns:
            The records of its tokens so far, and the end of one that is forgotten instead.
        """
        if sequence.ended:
            return []
        self._sequences.append(sequence)
        forgotten = self._sequences[: -self._capacity]
        del self._sequences[: -self._capacity]
        ends = [entry for aborted in forgotten for entry in aborted.end("departed")]
        return [*sequence.record_unsettled(), *ends]

    def close(self) -> list[Entry]:
        """Forgets all sequences, which cannot be resumed any more; returns their ends."""
        sequences, self._sequences = self._sequences, []
        return [entry for sequence in sequences for entry in sequence.end("departed")]

    def take(self, options: RequestOptions, history: Sequence[int]) -> TokenSequence | None:
        """Returns the sequence that is resumed and forgets it, or ``None`` if there is none.

        Args:
            options: The options of its request.
            history: Its tokens as the engine knows them, at least one.
        """
        for index, sequence in enumerate(self._sequences):
            if sequence.could_be_resumed(options, history):
                return self._sequences.pop(index)
        return None
