# SPDX-License-Identifier: Apache-2.0
"""The rows of one generation: which sequence each belongs to, and what has become of its token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qr_sampler_local.loop import LEFT_TO_CALLER, LocalSampler, LocalSequence, force_tokens

__all__ = ["Batch", "begun_sequences"]


def begun_sequences(
    sampler: LocalSampler,
    prompts: Sequence[Sequence[int]],
    options: Sequence[Mapping[str, Any]],
    limits: Sequence[int | None],
    **common: Any,
) -> list[LocalSequence]:
    """Returns a sequence for each row; none stays open if one of them cannot begin.

    Args:
        sampler: What makes them.
        prompts: The tokens of each row's prompt.
        options: The options of each row.
        limits: Most tokens of each row; ``None`` for no limit.
        **common: What else :meth:`LocalSampler.sequence` takes, the same for all rows.

    Raises:
        ConfigError: When an option is refused.
    """
    begun: list[LocalSequence] = []
    try:
        for prompt, own, limit in zip(prompts, options, limits, strict=True):
            begun.append(sampler.sequence(prompt, max_tokens=limit, **common, **own))
    except BaseException:
        for sequence in begun:
            sampler.close(sequence)
        raise
    return begun


class Batch:
    """Chooses the tokens of a generation and keeps the books of its rows.

    A token is emitted when the engine goes on from it, when it was handed to whoever reads, or when
    the generation ends as it should. What an exception leaves over is a discard.

    Args:
        sampler: What it samples with.
        sequences: That of each row.
        pads: Whether the engine is known to fill up rows that have ended. Otherwise all of them may
            go on until the last one ends.
        keep_logits: Whether others keep the logits of a step, the caller or a logits processor, so
            that they have to stay as they are.
        after_step: Called when the rows have begun, and after each step, when its tokens are in
            them.
    """

    def __init__(
        self,
        sampler: LocalSampler,
        sequences: Sequence[LocalSequence],
        *,
        pads: bool,
        keep_logits: bool = False,
        after_step: Callable[[Batch], object] | None = None,
    ) -> None:
        self.sequences = list(sequences)
        """That of each row."""
        self.left_to_engine = sum(sequence.left_to_caller for sequence in sequences)
        """How many rows get tokens of the engine's own choice."""
        self._sampler = sampler
        self._pads = pads
        self._keep_logits = keep_logits
        self._after_step = after_step
        self._chosen = [LEFT_TO_CALLER] * len(sequences)
        """The latest token of each row, ``LEFT_TO_CALLER`` for those that got none."""
        self._open: set[int] = set()
        """The rows whose latest token may not have reached anybody yet."""
        self._over: set[int] = set()
        """The rows that the engine has ended: since the latest step, or ever if it does not pad."""
        self._steps = self._handed_over = 0

    @property
    def ended_rows(self) -> list[bool]:
        """For each row, whether it gets no more tokens of ours."""
        return [sequence.ended for sequence in self.sequences]

    @property
    def fresh_rows(self) -> list[int]:
        """The rows that got a token in the latest step which has not been handed over."""
        return sorted(self._open)

    def begin(self) -> None:
        """Tells whoever wants to know that the rows have begun."""
        if self._after_step is not None:
            self._after_step(self)

    def choose(self, logits: Any) -> Any:
        """Returns *logits* with the token of each row forced.

        Rows that have ended get none; where the engine does not pad them, their end token.

        Args:
            logits: Shape ``(B, V)``, modified in place unless they are kept.
        """
        self._go_on()
        sequences = self.sequences
        going = [not (sequence.ended or sequence.left_to_caller) for sequence in sequences]
        self._chosen = [LEFT_TO_CALLER] * len(sequences)
        self._steps += 1
        if not any(going) and self._pads:
            return logits
        tokens = self._sampler.step(logits, sequences)
        for row, goes in enumerate(going):
            if goes:
                self._open.add(row)
            if goes or self._must_fill(row):
                self._chosen[row] = tokens[row]
        return force_tokens(logits.clone() if self._keep_logits else logits, self._chosen)

    def observe(self, ended: Sequence[bool], tokens: Sequence[int] = ()) -> None:
        """Takes note of the engine's verdict after a step.

        Args:
            ended: For each row, whether it ends with its latest token.
            tokens: The latest token of each row; needed where some are left to the engine.
        """
        if self.left_to_engine:
            self._note_choices(tokens)
        self._over.update(row for row, over in enumerate(ended) if over)
        if self._after_step is not None:
            self._after_step(self)

    def took(self, tokens: Sequence[int]) -> None:
        """Compares what was chosen with what the engine has appended.

        Rows with another token have ended before it: their text does not have what was drawn.

        Args:
            tokens: The latest token of each row.
        """
        for row in self.fresh_rows:
            if self._chosen[row] != tokens[row]:
                self._drop(row, "after_stop")
                self._close(row, "stop")

    def handed_over(self) -> None:
        """Takes note that a further step's tokens are handed to a streamer.

        One that is a step behind gets tokens that the engine has gone on from already.
        """
        self._handed_over += 1
        if self._handed_over == self._steps:
            for row in self.fresh_rows:
                self.emitted(row)

    def emitted(self, row: int) -> None:
        """Takes note that the latest token of a row has reached whoever reads."""
        if row in self._open:
            self._open.discard(row)
            self._sampler.emitted(self.sequences[row])

    def abort(self, row: int) -> None:
        """Gives a row up, while the others go on; its tokens so far have reached whoever reads.

        To be called after a step. The engine fills the row up like one that has ended.

        Raises:
            ValueError: When the engine does not fill up rows that have ended.
        """
        if not self._pads:
            raise ValueError(
                f"row {row}: without an end token no row can end before the others; pass "
                "eos_token_id and pad_token_id to generate"
            )
        self.emitted(row)
        self._close(row, "departed")

    def finish(self) -> None:
        """Ends all rows; everything that was chosen is in the text that the engine returns."""
        for row in range(len(self.sequences)):
            self.emitted(row)
            self._close(row, "stop")

    def abandon(self) -> None:
        """Ends all rows that are open, because of an exception; what is left over is discarded."""
        for row in range(len(self.sequences)):
            if row in self._open:
                self._drop(row, "not_emitted")
            self._close(row, "departed")

    def forget(self) -> None:
        """Ends all rows that are open; whether their latest tokens were emitted is unknown."""
        self._open.clear()
        for row in range(len(self.sequences)):
            self._close(row, "departed")

    def _note_choices(self, tokens: Sequence[int]) -> None:
        """Notes the tokens that the engine has chosen for the rows that are left to it."""
        for row, sequence in enumerate(self.sequences):
            if sequence.left_to_caller and not sequence.ended:
                self._sampler.chosen(sequence, tokens[row])
                self._open.add(row)

    def _must_fill(self, row: int) -> bool:
        """Whether a row has ended of which the engine would choose further tokens itself."""
        sequence = self.sequences[row]
        return sequence.ended and not (self._pads or sequence.left_to_caller)

    def _go_on(self) -> None:
        """Takes note that the engine goes on: the tokens of the step before are emitted."""
        # One that learns late that all rows are over throws its last step away.
        if self._pads or len(self._over) == len(self.sequences):
            for row in self._over:
                self.emitted(row)
                self._close(row, "stop")
            self._over.clear()
        self._open.clear()

    def _drop(self, row: int, reason: str) -> None:
        self._open.discard(row)
        self._sampler.dropped(self.sequences[row], 1, reason)

    def _close(self, row: int, reason: str) -> None:
        sequence = self.sequences[row]
        if not sequence.closed:
            self._sampler.close(sequence, reason=reason)
