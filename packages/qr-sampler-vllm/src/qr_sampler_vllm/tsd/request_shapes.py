# SPDX-License-Identifier: Apache-2.0
"""What is known of the distributions of a request before their logits are, for its drafts.

Not known then, and left out: penalties and bad words of several tokens, which depend on the text;
``logit_bias`` and filters that look at the shape of the distribution (``top_n_sigma``,
``typical_p``); the temperature of strategies that look at it; and the mask of a grammar, which
vLLM's scheduler makes for drafts that exist already (``Scheduler.update_draft_token_ids`` has the
grammar cut them).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from qr_sampler import SamplingParameters
from qr_sampler_tsd.fitting import RequestShape, fit

__all__ = ["NOTHING_KNOWN", "RequestShapes", "fitted", "shapes_of"]


class RequestShapes(NamedTuple):
    """The shapes of a request along its text."""

    early: RequestShape
    """Before ``min_tokens``, where nothing that stops it can occur."""
    late: RequestShape
    """From there on."""
    min_tokens: int
    """Index of the first token that may stop it."""

    def at(self, position: int) -> RequestShape:
        """Returns the shape of the token with the index *position*."""
        return self.early if position < self.min_tokens else self.late


NOTHING_KNOWN: Final = RequestShapes(RequestShape(), RequestShape(), 0)
"""Shapes that leave every payload as it is."""


def shapes_of(parameters: SamplingParameters, sampling_params: Any) -> RequestShapes:
    """Returns the shapes of a request.

    Args:
        parameters: How its tokens are sampled.
        sampling_params: vLLM's ``SamplingParams``.
    """
    constant = parameters.temperature_strategy == "fixed"
    allowed = sampling_params.allowed_token_ids
    words = getattr(sampling_params, "bad_words_token_ids", None) or ()
    single = {word[0] for word in words if len(word) == 1}

    def shape(barred: set[int]) -> RequestShape:
        return RequestShape(
            temperature=parameters.fixed_temperature if constant else None,
            top_k=max(parameters.top_k, 0),
            min_p=parameters.min_p,
            top_p=parameters.top_p,
            truncate_first=parameters.truncate_first,
            allowed=None if allowed is None else np.array(allowed, dtype=np.int64),
            barred=np.array(sorted(barred), dtype=np.int64) if barred else None,
        )

    late = shape(single)
    min_tokens = int(sampling_params.min_tokens)
    stops = set(sampling_params.all_stop_token_ids) if min_tokens else set()
    return RequestShapes(shape(single | stops) if stops else late, late, min_tokens)


def fitted(proposer: Any, state: Any, shapes: RequestShapes, position: int) -> Any:
    """Returns the payload for the token with the index *position*; ``None`` where none is of use.

    Args:
        proposer: A ``Proposer``.
        state: Its state after the tokens so far.
        shapes: Of the request.
        position: Index of the token among those of the request.
    """
    psi = proposer.psi(state)
    return None if psi is None else fit(psi, shapes.at(position), proposer.temperature)
