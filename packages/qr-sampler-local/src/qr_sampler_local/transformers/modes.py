# SPDX-License-Identifier: Apache-2.0
"""Ways to generate in which an emitted token is no draw from its row of logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qr_sampler.errors import ConfigError

__all__ = ["refuse_arguments", "refuse_mode"]

_BEAMS: Final = (
    "beam search keeps the texts with the highest scores, so that none of their tokens is a draw; "
    "pass num_beams=1, and num_return_sequences for several texts"
)
_ASSISTED: Final = (
    "assisted decoding accepts what something else proposes with Transformers' own random numbers; "
    "leave it out"
)

_REASONS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "beam_search": (("num_beams",), _BEAMS),
    "beam_sample": (("num_beams",), _BEAMS),
    "group_beam_search": (("num_beam_groups", "num_beams"), _BEAMS),
    "constrained_beam_search": (("constraints", "force_words_ids"), _BEAMS),
    "assisted_generation": (
        ("prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp"),
        _ASSISTED,
    ),
    "contrastive_search": (
        ("penalty_alpha",),
        "contrastive search takes the token with the best score and draws nothing; leave it out",
    ),
    "dola_generation": (
        ("dola_layers",),
        "DoLa replaces the logits between layers in a loop of its own; leave it out",
    ),
}
"""By mode: the parameters that may ask for it, and why it is refused, with the remedy."""

_ARGUMENTS: Final[Mapping[str, str]] = {
    "assistant_model": _ASSISTED,
    "custom_generate": "qr-sampler passes one itself; use TransformersSampler.custom_generate, or "
    "a processor in your own",
}


def refuse_mode(config: Any) -> None:
    """Refuses a generation whose tokens could not be exact draws.

    Args:
        config: The complete ``GenerationConfig`` of the call.

    Raises:
        ConfigError: Naming the parameter, its value, the reason and the remedy.
    """
    if getattr(config, "is_assistant", False):
        raise ConfigError(f"assistant_model: {_ASSISTED}")
    mode = str(config.get_generation_mode().value)
    if mode not in ("greedy_search", "sample"):
        names, reason = _REASONS.get(mode, ((), "its tokens are no draws from their rows"))
        raise ConfigError(f"{_said(config, names) or mode}: {reason}")
    if getattr(config, "num_beams", None) not in (None, 1):
        raise ConfigError(f"{_said(config, ('num_beams',))}: {_BEAMS}")


def refuse_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuses arguments of ``generate`` that cannot be served.

    Raises:
        ConfigError: Naming the argument, the reason and the remedy.
    """
    for name, reason in _ARGUMENTS.items():
        if arguments.get(name) is not None:
            raise ConfigError(f"{name}: {reason}")
    if arguments.get("cache_implementation") == "paged":
        raise ConfigError(
            "cache_implementation='paged': continuous batching samples in a loop that takes no "
            "part of qr-sampler; pass another one, or serve the model with vLLM"
        )


def _said(config: Any, names: tuple[str, ...]) -> str:
    """Returns the first of the parameters *names* that is set, with its value."""
    for name in names:
        value = getattr(config, name, None)
        if value:
            return f"{name}={value!r}"
    return ""
