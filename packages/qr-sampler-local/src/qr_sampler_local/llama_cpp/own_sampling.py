# SPDX-License-Identifier: Apache-2.0
"""The options of llama.cpp's own sampling: followed on request, refused otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qr_sampler.admission.overrides import EngineFields
from qr_sampler.errors import ConfigError, shown

__all__ = ["LAST_CHOICE", "check_own_sampling", "engine_fields", "switched_on"]

LAST_CHOICE: Final[Mapping[str, Any]] = {
    "temp": 0.0,
    "repeat_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "mirostat_mode": 0,
    "grammar": None,
}
"""What ``Llama.generate`` is told when the row is forced: to take the largest logit."""


@dataclass(frozen=True, slots=True)
class _OwnOption:
    """An option of llama.cpp's sampling."""

    title: str
    """Its name in a completion."""
    harmless: tuple[Any, ...]
    """Values that nobody has asked for, or that change nothing."""
    remedy: str
    """What to do instead."""
    followed: bool = False
    """Whether ``qr_follow_request`` makes it count."""


_PENALTY: Final = "pass a logits processor of your own to LlamaCppSampler.request, or leave it out"
_OWN_OPTIONS: Final = {
    "temp": _OwnOption(
        "temperature", (0.8, 0.2), "pass qr_fixed_temperature, or qr_follow_request=1", True
    ),
    "top_k": _OwnOption("top_k", (40, 0, -1), "pass qr_top_k, or qr_follow_request=1", True),
    "top_p": _OwnOption("top_p", (0.95, 1.0), "pass qr_top_p, or qr_follow_request=1", True),
    "min_p": _OwnOption("min_p", (0.05, 0.0), "pass qr_min_p, or qr_follow_request=1", True),
    "typical_p": _OwnOption("typical_p", (1.0,), "pass qr_typical_p"),
    "tfs_z": _OwnOption("tfs_z", (1.0,), "leave it out"),
    "mirostat_mode": _OwnOption("mirostat_mode", (0,), "pass qr_temperature_strategy"),
    "repeat_penalty": _OwnOption("repeat_penalty", (1.0,), _PENALTY),
    "frequency_penalty": _OwnOption("frequency_penalty", (0.0,), _PENALTY),
    "presence_penalty": _OwnOption("presence_penalty", (0.0,), _PENALTY),
    "grammar": _OwnOption(
        "grammar (also that of response_format and of a chosen tool)",
        (None,),
        "leave it out: llama.cpp applies it after the token is chosen, and may refuse that token",
    ),
}
"""By their names in ``Llama.generate``. The values are the defaults of its completions, which
cannot be told from a wish, and those that switch an option off."""


def switched_on(options: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    """Returns whether a switch among the ``qr_*`` options of a completion is on.

    Args:
        options: The options; a value that is no switch is refused elsewhere.
        key: Name of the switch.
        default: What counts without it.
    """
    return str(options.get(key, default)).lower() in ("1", "true")


def engine_fields(own: Mapping[str, Any]) -> EngineFields:
    """Returns the ordinary fields of a completion.

    Args:
        own: The arguments of ``Llama.generate``, all of them.
    """
    return EngineFields(
        temperature=float(own["temp"]),
        top_p=float(own["top_p"]),
        top_k=int(own["top_k"]),
        min_p=float(own["min_p"]),
    )


def check_own_sampling(own: Mapping[str, Any], *, followed: bool) -> None:
    """Refuses options of llama.cpp's sampling that would act on nothing.

    They come after the row has been forced, so that they cannot change the token any more.

    Args:
        own: The arguments of ``Llama.generate``, all of them.
        followed: Whether its temperature and its filters are followed.

    Raises:
        ConfigError: Naming the option, its value and the remedy.
    """
    for name, option in _OWN_OPTIONS.items():
        if name not in own or (followed and option.followed):
            continue
        value = own[name]
        if value is not None and value not in option.harmless:
            raise ConfigError(
                f"{option.title}={shown(value)}: llama.cpp's own sampling does not choose the "
                f"tokens here; {option.remedy}"
            )
