# SPDX-License-Identifier: Apache-2.0
"""Generates texts together and hands their tokens over, one by one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.generate import wired_limit

from qr_sampler.host import Outcome
from qr_sampler_local import LocalSampler, LocalSequence
from qr_sampler_local.engines.protocol import EmittedToken, FinishReason, Generated, TokenListener
from qr_sampler_local.mlx.decoding import Decoding

__all__ = ["generated"]

logger = logging.getLogger("qr_sampler.local")


def generated(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampler: LocalSampler,
    sequences: Sequence[LocalSequence],
    on_token: TokenListener | None,
    *,
    prefill_step_size: int,
) -> list[Generated]:
    """Returns what was emitted for each prompt.

    Args:
        model: A model of MLX-LM.
        prompts: The tokens of each prompt, at least one.
        sampler: What chooses the tokens.
        sequences: The sequence of each prompt.
        on_token: As for :meth:`~qr_sampler_local.engines.LocalEngine.generate`.
        prefill_step_size: Number of tokens of a prompt that the model is given at once.
    """
    texts = [_Text(index, sequence) for index, sequence in enumerate(sequences)]
    try:
        with wired_limit(model):
            _generate(model, prompts, sampler, texts, on_token, prefill_step_size)
    except KeyboardInterrupt:
        logger.info("the user has ended the generation")
    finally:
        for text in texts:
            text.settle(sampler)
    return [text.generated() for text in texts]


class _Text:
    """One text, and how many of its tokens have been handed over.

    Args:
        index: Index of its prompt.
        sequence: Its sequence.
    """

    def __init__(self, index: int, sequence: LocalSequence) -> None:
        self.index = index
        self.sequence = sequence
        self.handed_over = 0

    def hand_over(self, outcome: Outcome | None, on_token: TokenListener | None) -> None:
        """Hands its latest token over.

        Args:
            outcome: What has chosen it; ``None`` for the model itself.
            on_token: Who gets it.
        """
        self.handed_over += 1
        if on_token is None:
            return
        token_id = self.sequence.tokens[-1]
        on_token(
            EmittedToken(self.index, self.handed_over - 1, token_id)
            if outcome is None
            else EmittedToken.of(self.index, outcome)
        )

    def settle(self, sampler: LocalSampler) -> None:
        """Records its end; what was not handed over becomes a discard."""
        if not self.sequence.left_to_caller:
            sampler.dropped(self.sequence, len(self.sequence.tokens) - self.handed_over)
        sampler.emitted(self.sequence)
        sampler.close(self.sequence)

    def generated(self) -> Generated:
        """Returns what was emitted."""
        sequence = self.sequence
        return Generated(
            sequence=sequence.name,
            request_key=sequence.request_key,
            tokens=tuple(sequence.tokens[: self.handed_over]),
            finish_reason=self._finish_reason(),
        )

    def _finish_reason(self) -> FinishReason:
        reason = self.sequence.finish_reason
        if reason in ("stop", "forced"):
            return "stop"
        return "length" if reason == "length" else "interrupted"


def _generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampler: LocalSampler,
    texts: Sequence[_Text],
    on_token: TokenListener | None,
    prefill_step_size: int,
) -> None:
    decoding = Decoding(model, prompts, prefill_step_size=prefill_step_size)
    tokens = [prompt[-1] for prompt in prompts]
    going_on = list(texts)
    while going_on:
        logits = decoding.logits(tokens)
        outcomes = sampler.decide(logits, [text.sequence for text in going_on])
        for line, (text, outcome) in enumerate(zip(going_on, outcomes, strict=True)):
            if text.sequence.left_to_caller:
                sampler.chosen(text.sequence, int(mx.argmax(logits[line]).item()))
            text.hand_over(outcome, on_token)
        lines = [line for line, text in enumerate(going_on) if not text.sequence.ended]
        if lines and len(lines) < len(going_on):
            decoding.keep(lines)
        going_on = [going_on[line] for line in lines]
        tokens = [text.sequence.tokens[-1] for text in going_on]
