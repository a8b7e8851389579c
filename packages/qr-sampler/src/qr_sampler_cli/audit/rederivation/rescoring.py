# SPDX-License-Identifier: Apache-2.0
"""Sequences that are over, scored by the model in batches, and their tokens judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from qr_sampler import ComponentError
from qr_sampler.settings import MAX_TEMPERATURE, MIN_TEMPERATURE
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.rederivation.judging.evidence import Evidence
from qr_sampler_cli.audit.rederivation.judging.token_errors import judged_rows
from qr_sampler_cli.audit.rederivation.parameters import Temperatures
from qr_sampler_cli.audit.rederivation.transcripts import Decided, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qr_sampler.arrays import Logits

__all__ = ["LogitsOf", "Rescoring"]

_MOST_WAITING: Final = 2**16
"""Tokens of sequences that wait for others of their length."""

_MOST_AT_ONCE: Final = 2**13
"""Tokens of a batch, what pads them included."""

_MOST_JUDGED: Final = 2**20
"""Logits that are judged at once; selecting takes about 60 bytes for each."""


class LogitsOf(Protocol):
    """What gives logits: :class:`~.teacher_forcing.RescoringModel`, or a double."""

    vocab_size: int
    """Number of tokens."""
    longest: int
    """Most tokens of a text."""

    def logits(self, sequences: Sequence[Any], first: Sequence[int]) -> Iterator[Any]:
        """Yields slices of logits, see :class:`~.teacher_forcing.LogitsSlice`."""


class Rescoring:
    """Judges the tokens of sequences.

    Args:
        rung: Takes the findings.
        model: Gives the logits.
        evidence: Takes what is found of each token.
        progress: Called for every token that has been dealt with.
    """

    def __init__(
        self,
        rung: Rung,
        model: LogitsOf,
        evidence: Evidence,
        progress: Callable[[], object],
    ) -> None:
        self._rung = rung
        self._model = model
        self._evidence = evidence
        self._progress = progress
        self._waiting: list[Transcript] = []
        self._size = 0

    def add(self, transcript: Transcript) -> None:
        """Takes in a sequence that is over, with its prompt."""
        self._cut(transcript)
        if not len(transcript):
            return
        self._waiting.append(transcript)
        self._size += len(transcript.prompt) + len(transcript)
        if self._size >= _MOST_WAITING:
            self.flush()

    def _cut(self, transcript: Transcript) -> None:
        """Leaves out the tokens that the model cannot have given."""
        vocab_size = self._model.vocab_size
        for position, token_id in enumerate(transcript.ids):
            if token_id >= vocab_size:
                self._rung.fail(
                    transcript.places[position],
                    f"token {token_id} is none of the {vocab_size:,} that the model has",
                )
                self._leave_out(transcript, position, "tokens after an unknown one")
                return
        room = max(self._model.longest - len(transcript.prompt), 0)
        if len(transcript) > room:
            self._leave_out(transcript, room, "tokens of texts longer than the model was made for")

    def _leave_out(self, transcript: Transcript, length: int, reason: str) -> None:
        place, count = transcript.places[length], len(transcript) - length
        self._rung.cannot_say(reason, place, count)
        transcript.truncate(length)

    def flush(self) -> None:
        """Judges all sequences that wait."""
        # Sequences of one length need no padding; the longest first, so that a machine that lacks
        # memory says so at once.
        waiting = sorted(self._waiting, key=_length, reverse=True)
        self._waiting, self._size = [], 0
        while waiting:
            count = max(1, _MOST_AT_ONCE // _length(waiting[0]))
            batch, waiting = waiting[:count], waiting[count:]
            self._judge(batch)

    def _judge(self, batch: list[Transcript]) -> None:
        # The last token has no successor.
        texts = [[*each.prompt, *each.ids[:-1]] for each in batch]
        first = [len(each.prompt) - 1 for each in batch]
        temperatures = [Temperatures(each, self._model.vocab_size) for each in batch]
        step = max(1, _MOST_JUDGED // self._model.vocab_size)
        for line, begin, logits in self._model.logits(texts, first):
            for row in range(0, len(logits), step):
                self._judge_rows(
                    batch[line],
                    temperatures[line],
                    begin - first[line] + row,
                    logits[row : row + step],
                )

    def _judge_rows(
        self, transcript: Transcript, temperatures: Temperatures, begin: int, logits: Logits
    ) -> None:
        """Judges consecutive tokens of a sequence, in their order."""
        positions = range(begin, begin + len(logits))
        recorded = [transcript.numbers(position) for position in positions]
        usable = [
            index
            for index, position in enumerate(positions)
            if self._is_judged(transcript, position, recorded[index].temperature)
        ]
        rows = judged_rows(
            logits[usable],
            [transcript.ids[begin + index] for index in usable],
            [transcript.decided[begin + index] for index in usable],
            [recorded[index] for index in usable],
            transcript.parameters,
        )
        judged = dict(zip(usable, rows, strict=True))
        for index, position in enumerate(positions):
            place = transcript.places[position]
            row = judged.get(index)
            if row is not None:
                self._evidence.add(row, place)
            elif index in judged:
                self._rung.cannot_say("rows for which the model gives no finite logits", place)
            deviation = math.nan if row is None else row.deviation
            self._judge_temperature(transcript, temperatures, position, deviation)
            self._progress()

    def _judge_temperature(
        self, transcript: Transcript, temperatures: Temperatures, position: int, deviation: float
    ) -> None:
        place, recorded = transcript.places[position], transcript.numbers(position)
        try:
            fault = temperatures.fault(transcript.decided[position], recorded, deviation)
        except ComponentError as error:
            self._rung.cannot_say(f"temperatures: {error}", place)
        else:
            if fault:
                self._rung.fail(place, fault)

    def _is_judged(self, transcript: Transcript, position: int, temperature: float) -> bool:
        place, decided = transcript.places[position], transcript.decided[position]
        if decided == Decided.NOTHING:
            return False
        if position < transcript.min_tokens:
            self._rung.cannot_say("tokens before min_tokens, until which some are masked", place)
            return False
        if decided == Decided.SEVERAL_NUMBERS:
            self._rung.cannot_say("which token several numbers give; its row is judged", place)
        # What is out of range is no temperature of any strategy, which is said below.
        return MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE


def _length(transcript: Transcript) -> int:
    return len(transcript.prompt) + len(transcript)
