# SPDX-License-Identifier: Apache-2.0
"""Spares vLLM the drawing of tokens that are forced.

In a forced row one token is finite. Model Runner V1 would divide such rows by their temperatures,
sort them where top-k or top-p is asked for, and draw an exponential number for every token of the
vocabulary, to arrive at the one token that is left. The token of the largest logit is the same one,
and what a later processor or a penalty has changed still counts. So where all rows of a step are
forced, the function that samples them takes the path that vLLM has for requests with temperature 0.
If a version of vLLM has no function of that name, forced rows are sampled like others.
"""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any, Final

__all__ = ["mark_forced", "take_largest_of_forced"]

_MARK: Final = "qr_sampler_forced"
"""Attribute of logits all of whose rows are forced."""


def mark_forced(logits: Any) -> None:
    """Tells vLLM's sampler that all rows of *logits*, a tensor, are forced."""
    # Arrays, which vLLM has not made, have no room for it.
    if hasattr(logits, "__dict__"):
        setattr(logits, _MARK, True)


def take_largest_of_forced() -> None:
    """Wraps the function with which Model Runner V1 samples, once per process."""
    # Whoever samples has imported them.
    sampler = getattr(sys.modules.get("vllm.v1.sample.sampler"), "Sampler", None)
    metadata = getattr(sys.modules.get("vllm.v1.sample.metadata"), "SamplingMetadata", None)
    draw = getattr(sampler, "sample", None)
    if draw is None or hasattr(draw, _MARK) or not _says_what_is_greedy(metadata):
        return
    greedy = _GreedyMetadata()

    @wraps(draw)
    def sample(
        self: Any, logits: Any, sampling_metadata: Any, *arguments: Any, **options: Any
    ) -> Any:
        if hasattr(logits, _MARK):
            sampling_metadata = greedy.of(sampling_metadata)
        return draw(self, logits, sampling_metadata, *arguments, **options)

    setattr(sample, _MARK, True)
    sampler.sample = sample  # type: ignore[union-attr]


def _says_what_is_greedy(metadata: Any) -> bool:
    names = {field.name for field in fields(metadata)} if is_dataclass(metadata) else set()
    return {"all_greedy", "all_random"} <= names


class _GreedyMetadata:
    """vLLM's description of a batch, with all of its requests at temperature 0."""

    def __init__(self) -> None:
        # In one, since engines may run in several threads.
        self._latest: tuple[Any, Any] = (None, None)

    def of(self, metadata: Any) -> Any:
        """Returns a copy of *metadata*; the same one while the batch stays the same."""
        given, greedy = self._latest
        if metadata is not given:
            greedy = replace(metadata, all_greedy=True, all_random=False)
            self._latest = (metadata, greedy)
        return greedy
