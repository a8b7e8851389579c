# SPDX-License-Identifier: Apache-2.0
"""One sequence of a ``Llama``, from its prompt to its end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler_local.llama_cpp.processor import SequenceProcessor
from qr_sampler_local.loop import LocalSampler, LocalSequence

__all__ = ["ForeignTokenError", "Turn"]


class ForeignTokenError(QRSamplerError, RuntimeError):
    """llama.cpp has taken another token than the one that was forced."""


class Turn:
    """Hands out the tokens of one sequence, and settles what has become of them.

    Args:
        sampler: Chooses the tokens.
        sequence: The sequence.
        processor: Its logits processor.
        tokens: The generator of ``Llama.generate`` that calls it.
    """

    def __init__(
        self,
        sampler: LocalSampler,
        sequence: LocalSequence,
        processor: SequenceProcessor,
        tokens: Generator[int, Any, None],
    ) -> None:
        self.sequence = sequence
        """The sequence."""
        self.closed = False
        """Whether it is over."""
        self.is_whole: Callable[[Sequence[int]], bool] = lambda tokens: False
        """Whether tokens are a whole text though they do not end the sequence."""
        self._sampler = sampler
        self._processor = processor
        self._tokens = tokens
        self._taken = 0
        """Number of tokens that have been yielded."""
        self._stopped = False
        """Whether llama-cpp-python has ended the text before it yielded a token."""

    def tokens(self) -> Generator[int, Any, None]:
        """Yields the tokens until the sequence has ended.

        A token counts as emitted when it has been yielded.

        Raises:
            ConfigError: When it is told a token, or resumed after another turn has begun.
            ForeignTokenError: When llama.cpp takes another token than the chosen one.
        """
        for token_id in self._tokens:
            self._check(token_id)
            self._processor.token_id = None
            self._taken += 1
            told = yield token_id
            if told is not None:
                raise ConfigError(
                    f"send({told!r}): every token of a sequence has to be chosen; begin another "
                    "one with the longer prompt"
                )
            if self.closed:
                raise ConfigError(
                    "the block of the sampler has ended, or another completion of this Llama has "
                    "begun, which overwrites the state of this one; use a Llama for each text, or "
                    "finish one before the next"
                )
            if self.sequence.ended:
                return
        if self._processor.error is not None:
            # A stopping criterion has ended the text at the token that could not be chosen.
            raise self._processor.error
        self._stopped = True

    def close(self, *, handed_over: bool = True) -> None:
        """Settles the sequence. A second call does nothing.

        Args:
            handed_over: Whether the token that was yielded last has reached whoever reads.
        """
        if self.closed:
            return
        self.closed = True
        self._tokens.close()
        arrived = self._taken if handed_over else self._taken - 1
        unread = len(self.sequence.tokens) - max(arrived, 0)
        # A stopping criterion throws away the token that was chosen before it was asked.
        why = "after_stop" if self._stopped else "not_emitted"
        self._sampler.dropped(self.sequence, min(unread, self.sequence.unsettled), why)
        self._sampler.emitted(self.sequence)
        reason = "stop" if self.is_whole(self.sequence.tokens) else "departed"
        self._sampler.close(self.sequence, reason=reason)

    def _check(self, token_id: int) -> None:
        """Raises what kept the token from being chosen."""
        processor = self._processor
        if processor.error is not None:
            raise processor.error
        if processor.token_id != token_id:
            processor.error = ForeignTokenError(
                f"llama.cpp has taken token {token_id} instead of {processor.token_id}, which was "
                "chosen; its sampling was interrupted, or its version is not supported"
            )
            raise processor.error
