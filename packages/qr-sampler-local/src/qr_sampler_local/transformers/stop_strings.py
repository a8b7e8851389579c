# SPDX-License-Identifier: Apache-2.0
"""Stop strings, whose criterion ``generate`` makes only for its own loops."""

from __future__ import annotations

from typing import Any

from transformers import StoppingCriteriaList, StopStringCriteria

from qr_sampler.errors import ConfigError

__all__ = ["take_stop_strings"]


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
