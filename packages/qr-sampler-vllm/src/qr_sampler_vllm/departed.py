# SPDX-License-Identifier: Apache-2.0
"""Sequences that left the batch unfinished: preempted ones come back, aborted ones do not."""

from __future__ import annotations

from collections.abc import Sequence

from qr_sampler import Record, RequestOptions
from qr_sampler_vllm.token_sequence import TokenSequence

__all__ = ["ABORTED", "Departed"]

ABORTED = "aborted"
"""Reason of tokens that were sampled for a request while it was being aborted."""


class Departed:
    """Keeps unfinished sequences for the case that vLLM resumes them.

    vLLM does not say which sequence it resumes. But it hands over the tokens so far, and sequences
    with the same options and the same tokens are interchangeable.

    Args:
        capacity: Number of sequences to keep. No more than this can be waiting to be resumed; the
            oldest ones beyond were aborted.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._sequences: list[TokenSequence] = []

    def add(self, sequence: TokenSequence) -> list[Record]:
        """Takes in a sequence that left the batch; returns the records that this settles."""
        if sequence.ended:
            return []
        self._sequences.append(sequence)
        return _aborted(self._sequences.pop(0)) if len(self._sequences) > self._capacity else []

    def take(self, options: RequestOptions, history: Sequence[int]) -> TokenSequence | None:
        """Returns the sequence that vLLM resumes and forgets it, or ``None`` if there is none.

        Args:
            options: What its request asked for.
            history: Its tokens as vLLM knows them, at least one.
        """
        for index, sequence in enumerate(self._sequences):
            if sequence.could_be_resumed(options, history):
                return self._sequences.pop(index)
        return None

    def close(self) -> list[Record]:
        """Returns the records that remain when the engine ends."""
        remaining, self._sequences = self._sequences, []
        return [record for sequence in remaining for record in _aborted(sequence)]


def _aborted(sequence: TokenSequence) -> list[Record]:
    return sequence.drop(ABORTED)
