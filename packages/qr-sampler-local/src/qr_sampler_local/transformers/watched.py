# SPDX-License-Identifier: Apache-2.0
"""Stopping criteria and streamers, watched: which rows have ended, and what was handed over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import EosTokenCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from qr_sampler_local.transformers.batch import Batch

__all__ = ["WatchedCriteria", "WatchedStreamer", "end_tokens_of", "pads"]


class WatchedCriteria(StoppingCriteriaList):  # type: ignore[misc]
    """The same criteria, whose verdicts a batch is told, and which learn what it has ended itself.

    Args:
        criteria: All criteria of the generation.
        batch: Its rows. What they end by themselves are rows with a limit of their own, those that
            get no more entropy, and those that were given up.
    """

    def __init__(self, criteria: Iterable[Any], batch: Batch) -> None:
        super().__init__(criteria)
        self._batch = batch

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Returns whether each row ends with its latest token; shape ``(B,)``, bool."""
        ended = super().__call__(input_ids, scores, **kwargs)
        tokens = input_ids[:, -1].tolist() if self._batch.left_to_engine else ()
        self._batch.observe(ended.tolist(), tokens)
        return ended | torch.tensor(self._batch.ended_rows, device=ended.device)


class WatchedStreamer(BaseStreamer):  # type: ignore[misc]
    """Passes everything on.

    Args:
        streamer: Whoever reads.
        batch: The rows whose tokens it gets. It has got their prompts before.
    """

    def __init__(self, streamer: Any, batch: Batch) -> None:
        self._streamer = streamer
        self._batch = batch

    def put(self, value: Any) -> None:
        """Hands over the tokens of a step: they count as emitted even if it raises."""
        self._batch.handed_over()
        self._streamer.put(value)

    def end(self) -> None:
        """Says that there are no more."""
        self._streamer.end()


def end_tokens_of(criteria: Iterable[Any]) -> tuple[int, ...]:
    """Returns the tokens that end a row, in the order in which they are named.

    A negative one, which no model has, is how users say that there is none.
    """
    found = [each.eos_token_id for each in criteria if isinstance(each, EosTokenCriteria)]
    tokens = [int(token) for ids in found for token in ids.reshape(-1).tolist()]
    return tuple(dict.fromkeys(token for token in tokens if token >= 0))


def pads(criteria: Iterable[Any]) -> bool:
    """Whether Transformers pads rows that have ended; else all go on until the last one ends.

    Its loop asks the same of its criteria.
    """
    return any(hasattr(each, "eos_token_id") for each in criteria)
