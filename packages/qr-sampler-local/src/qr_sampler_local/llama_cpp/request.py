# SPDX-License-Identifier: Apache-2.0
"""The options of one completion, in the only argument that all methods of a ``Llama`` hand on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Limits", "Processor", "SamplingRequest"]

Processor: TypeAlias = Callable[[NDArray[np.intc], NDArray[np.single]], NDArray[np.single]]
"""What llama-cpp-python calls a logits processor: takes the tokens so far and the logits of shape
``(V,)``, and returns logits."""

logger = logging.getLogger("qr_sampler.local.llama_cpp")


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a completion, beside the tokens that end any text of a model."""

    max_tokens: int
    """Number of tokens after which it ends; the context ends it if that is below 1."""
    stop: tuple[str, ...]
    """Stop strings."""


class SamplingRequest(list[Processor]):
    """A list of logits processors that carries ``qr_*`` options along.

    Made by :meth:`LlamaCppSampler.request`, for the argument ``logits_processor`` of any method
    that generates. Its processors act before the token is chosen.

    Args:
        processors: What changes the logits first.
        options: The ``qr_*`` options.
        end_token: Ends the text of a completion that runs without the sampler.
        limits: What ends the completion; ``None`` if that is unknown.
    """

    def __init__(
        self,
        processors: Iterable[Processor],
        options: Mapping[str, Any],
        end_token: int = 0,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(processors)
        self.options = dict(options)
        """The ``qr_*`` options."""
        self.limits = limits
        """What ends the completion, beside end tokens; ``None`` if that is unknown."""
        self._end_token = end_token
        self.append(self._without_sampler)

    @classmethod
    def of(cls, given: Iterable[Processor] | None) -> SamplingRequest:
        """Returns the request that the argument ``logits_processor`` of a completion is."""
        return given if isinstance(given, cls) else cls(given or (), {})

    def limited(self, limits: Limits) -> SamplingRequest:
        """Returns the same with other *limits*."""
        return SamplingRequest(self.processors, self.options, self._end_token, limits)

    @property
    def processors(self) -> list[Processor]:
        """Those that were given, and the ones that llama-cpp-python has added."""
        return [each for each in self if each != self._without_sampler]

    def extend(self, more: Iterable[Processor]) -> SamplingRequest:  # type: ignore[override]
        """Returns a longer list.

        llama-cpp-python calls this for ``logit_bias`` and goes on with what it returns: with a
        plain list that is ``None``, so that all processors are lost.
        """
        longer = [*self.processors, *more]
        return SamplingRequest(longer, self.options, self._end_token, self.limits)

    def _without_sampler(
        self, input_ids: NDArray[np.intc], scores: NDArray[np.single]
    ) -> NDArray[np.single]:
        """Ends the text: an exception would not, because ctypes drops it."""
        logger.error(
            "the options of a LlamaCppSampler were used outside of its block, where llama.cpp would"
            " choose by itself: the text ends here"
        )
        ended = np.full_like(scores, -np.inf)
        ended[self._end_token] = 0.0
        return ended
