# SPDX-License-Identifier: Apache-2.0
"""Makes vLLM refuse requests that it answers from probabilities alone, without a drawn token.

Beam search, generative scoring and structured decisions ask the engine for one token at a time,
read the probabilities returned with it and throw the token away. It would cost entropy, and the
ledger would hold tokens that no client has seen, for an answer in which chance plays no part.
Admission cannot distinguish these requests from those of clients, so the functions that make them
are wrapped, in the front end.
"""

from __future__ import annotations

import sys
from functools import wraps
from importlib import import_module
from typing import Any, Final, NamedTuple

from qr_sampler import ConfigError

__all__ = ["refuse_unsampled_answers"]


class _Feature(NamedTuple):
    module: str
    owner: str
    method: str
    name: str


_FEATURES: Final = (
    _Feature(
        "vllm.entrypoints.generate.beam_search.online",
        "BeamSearchOnlineMixin",
        "beam_search",
        "beam search",
    ),
    _Feature(
        "vllm.entrypoints.generate.beam_search.offline",
        "BeamSearchOfflineMixin",
        "beam_search",
        "beam search",
    ),
    _Feature(
        "vllm.entrypoints.generate.generative_scoring.serving",
        "ServingGenerativeScoring",
        "create_generative_scoring",
        "generative scoring",
    ),
    _Feature(
        "vllm.entrypoints.generate.structured_decisions.serving",
        "ServingStructuredDecisions",
        "create_decision",
        "a structured decision",
    ),
    _Feature(
        "vllm.entrypoints.openai.decisions.serving",
        "OpenAIServingDecisions",
        "create_decisions",
        "a decision",
    ),
)
"""What vLLM answers from probabilities; older versions have fewer of these."""


def refuse_unsampled_answers(*, load: bool) -> None:
    """Wraps the functions that make such answers, each once per process.

    Args:
        load: Whether to import modules that this process has not imported yet; otherwise only
            those already imported are wrapped.
    """
    for feature in _FEATURES:
        owner = getattr(_module(feature.module, load), feature.owner, None)
        answer = vars(owner).get(feature.method) if owner is not None else None
        if answer is not None and not hasattr(answer, "qr_sampler_refusal"):
            setattr(owner, feature.method, _refusal(answer, feature.name))


def _module(name: str, load: bool) -> Any:
    if load:
        try:
            return import_module(name)
        except ImportError:
            return None
    return sys.modules.get(name)


def _refusal(answer: Any, name: str) -> Any:
    @wraps(answer)
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise ConfigError(
            f"{name} answers from probabilities and emits no drawn token, so the entropy source "
            "could play no part in it; ask an engine without qr-sampler-vllm"
        )

    refuse.qr_sampler_refusal = True  # type: ignore[attr-defined]
    return refuse
