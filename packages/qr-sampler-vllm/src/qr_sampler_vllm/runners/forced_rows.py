# SPDX-License-Identifier: Apache-2.0
"""Spares vLLM the drawing of tokens that are forced.

In a forced row one token is finite. Model Runner V1 would divide such rows by their temperatures,
sort them where top-k or top-p is asked for, and draw an exponential number for every token of the
vocabulary, to arrive at the one token that is left. The token of the largest logit is the same one.
So where all rows of a step are forced, the function that samples them takes the path that vLLM has
for requests with temperature 0; a token that a later processor has put above the forced one is
taken. If a version of vLLM has no function of that name, forced rows are sampled like others.

Generators with a seed are left to advance as vLLM expects it, and so are those of several ranks,
which must stay equal for rows that are left to vLLM.
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

    @wraps(draw)
    def sample(
        self: Any, logits: Any, sampling_metadata: Any, *arguments: Any, **options: Any
    ) -> Any:
        # Taken off, since the tensor may be used again.
        if vars(logits).pop(_MARK, False) and not sampling_metadata.generators:
            sampling_metadata = _greedy(sampling_metadata)
        return draw(self, logits, sampling_metadata, *arguments, **options)

    setattr(sample, _MARK, True)
    sampler.sample = sample  # type: ignore[union-attr]


def _says_what_is_greedy(metadata: Any) -> bool:
    """Returns whether *metadata* is a class whose instances :func:`_greedy` can serve."""
    if not is_dataclass(metadata) or "__slots__" in vars(metadata):
        return False
    names = {field.name for field in fields(metadata)}
    parameters = vars(metadata)["__dataclass_params__"]
    return not parameters.frozen and {"all_greedy", "all_random", "generators"} <= names


def _greedy(metadata: Any) -> Any:
    """Returns *metadata*, vLLM's description of a batch, as if all temperatures were 0."""
    # Kept with the description, so that it is made once per batch and lives no longer.
    greedy = vars(metadata).get(_MARK)
    if greedy is None:
        greedy = replace(metadata, all_greedy=True, all_random=False)
        setattr(metadata, _MARK, greedy)
    return greedy
