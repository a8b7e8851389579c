# SPDX-License-Identifier: Apache-2.0
"""Logits of several texts at once, computed by a model of MLX-LM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

__all__ = ["Decoding"]

_CLEAR_EVERY: Final = 256
"""Number of steps after which MLX gives up memory that it keeps for later, as MLX-LM does."""


class Decoding:
    """Texts that go on together: one token each, one row of logits each.

    Unlike the loops of MLX-LM it computes nothing ahead: a step begins when its tokens are known.

    Args:
        model: A model of MLX-LM.
        prompts: The tokens of each text so far, at least one.
        prefill_step_size: Number of tokens of a prompt that the model is given at once.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], *, prefill_step_size: int
    ) -> None:
        self._model = model
        self._prefill_step_size = prefill_step_size
        self._steps = 0
        caches = [self._prefilled(prompt[:-1]) for prompt in prompts]
        together = len(caches) > 1 and all(hasattr(part, "merge") for part in caches[0])
        self._together = together
        """Whether one call of the model serves all texts."""
        self._caches = [_merged(caches)] if together else caches

    def logits(self, tokens: Sequence[int]) -> mx.array:
        """Returns the logits that follow *tokens*, not yet computed.

        Args:
            tokens: The next token of each text.

        Returns:
            Shape ``(B, V)``, of the model's type.
        """
        self._steps += 1
        if self._steps % _CLEAR_EVERY == 0:
            mx.clear_cache()
        if self._together:
            return self._rows(tokens, self._caches[0])
        rows = [
            self._rows([token], cache) for token, cache in zip(tokens, self._caches, strict=True)
        ]
        return rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=0)

    def keep(self, texts: Sequence[int]) -> None:
        """Forgets all texts but *texts*.

        Args:
            texts: Their indices among those of the latest step, ascending, at least one.
        """
        if not self._together:
            self._caches = [self._caches[index] for index in texts]
            return
        for part in self._caches[0]:
            part.filter(list(texts))

    def _rows(self, tokens: Sequence[int], cache: list[Any]) -> mx.array:
        logits: mx.array = self._model(mx.array(tokens)[:, None], cache=cache)
        return logits[:, -1, :]

    def _prefilled(self, tokens: Sequence[int]) -> list[Any]:
        """Returns what the model remembers of *tokens*."""
        cache: list[Any] = make_prompt_cache(self._model)
        for start in range(0, len(tokens), self._prefill_step_size):
            piece = mx.array(tokens[start : start + self._prefill_step_size])
            self._model(piece[None], cache=cache)
            mx.eval([part.state for part in cache])
            mx.clear_cache()
        return cache


def _merged(caches: Sequence[Sequence[Any]]) -> list[Any]:
    """Returns what the model remembers of several texts, as one cache for each of its layers."""
    return [parts[0].merge(list(parts)) for parts in zip(*caches, strict=True)]
