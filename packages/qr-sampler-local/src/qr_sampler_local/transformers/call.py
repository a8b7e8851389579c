# SPDX-License-Identifier: Apache-2.0
"""The arguments of a call, as ``generate`` takes them together with a ``custom_generate``."""

from __future__ import annotations

from typing import Any

from transformers import StoppingCriteriaList, StopStringCriteria

from qr_sampler.errors import ConfigError
from qr_sampler_local.transformers.warpers import NEUTRAL_ARGUMENTS

__all__ = ["allow_several_texts", "take_stop_strings"]


def take_stop_strings(model: Any, tokenizer: Any, arguments: dict[str, Any]) -> None:
    """Turns the stop strings of a call into a stopping criterion.

    ``generate`` hands the tokenizer to no ``custom_generate``, and refuses stop strings without it.

    Args:
        model: The model, whose ``generation_config`` may have stop strings.
        tokenizer: Its tokenizer, if the caller has passed it.
        arguments: Those of ``generate``; modified.

    Raises:
        ConfigError: When there is no tokenizer, or the call asks for token healing.
    """
    _refuse_healing(model, arguments)
    strings = _setting(model, arguments, "stop_strings")
    if not strings:
        return
    if tokenizer is None:
        raise ConfigError(f"stop_strings={strings!r}: pass tokenizer=, the tokenizer of the model")
    criterion = StopStringCriteria(tokenizer, strings)
    others = arguments.get("stopping_criteria") or []
    arguments["stopping_criteria"] = StoppingCriteriaList([*others, criterion])
    arguments["stop_strings"] = None


def allow_several_texts(model: Any, arguments: dict[str, Any]) -> None:
    """Has a call with ``num_return_sequences`` accepted that does not say ``do_sample=True``.

    ``generate`` refuses it, since its own tokens would be the same in all of these texts. Its own
    sampling parameters stay switched off. Not for requests that would be greedy then: those that
    follow Transformers, or are left to it.

    Args:
        model: The model, whose ``generation_config`` may say the one or the other.
        arguments: Those of ``generate``; modified.
    """
    if (_setting(model, arguments, "num_return_sequences") or 1) == 1:
        return
    if not _setting(model, arguments, "do_sample"):
        arguments.update(NEUTRAL_ARGUMENTS, do_sample=True)


def _refuse_healing(model: Any, arguments: dict[str, Any]) -> None:
    if _setting(model, arguments, "token_healing"):
        raise ConfigError(
            "token_healing=True: it generates on its own before the first token; call "
            "model.heal_tokens(input_ids, tokenizer) before generate, and leave it out"
        )


def _setting(model: Any, arguments: dict[str, Any], name: str) -> Any:
    """Returns a parameter of a call, as ``generate`` finds it."""
    if arguments.get(name) is not None:
        return arguments[name]
    for config in (arguments.get("generation_config"), model.generation_config):
        if (value := getattr(config, name, None)) is not None:
            return value
    return None
