# SPDX-License-Identifier: Apache-2.0
"""Has vLLM refuse what it would answer from probabilities alone, with no token that was drawn.

Beam search, generative scoring and structured decisions ask the engine for one token at a time,
read the probabilities beside it and throw the token away. Entropy would be spent on it, and the
ledger would hold tokens that no client has seen, beside an answer in which chance has no part.
These requests cannot be told from those of clients when they reach admission, so the functions that
make them are wrapped, in the front end.
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
"""What vLLM answers from probabilities; its older versions have fewer of them."""


def refuse_unsampled_answers(*, load: bool) -> None:
    """Wraps the functions that make such answers, each once per process.

    Args:
        load: Whether to import the modules that this process has not imported yet. Without, only
            those are wrapped that are there.
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
            f"{name} answers from probabilities and emits no token that was drawn, so the entropy "
            "source could have no part in it; ask an engine without qr-sampler-vllm"
        )

    refuse.qr_sampler_refusal = True  # type: ignore[attr-defined]
    return refuse
