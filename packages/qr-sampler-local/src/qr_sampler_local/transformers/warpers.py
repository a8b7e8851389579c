# SPDX-License-Identifier: Apache-2.0
"""Transformers' own sampling parameters: refused beside ours, or followed.

With ``do_sample=True`` Transformers cuts and scales the logits by its ``temperature``, ``top_k``,
``top_p`` and so on, which come from the call, from the ``generation_config`` that a model ships, or
from its defaults (``top_k=50``). Applied before our own they would change the distribution twice,
applied after it they would do nothing. So they are refused, unless all requests of a batch follow
them (``qr_follow_request``): then ours take their values and theirs are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qr_sampler import EngineFields
from qr_sampler.errors import ConfigError

__all__ = [
    "NEUTRAL_ARGUMENTS",
    "followed",
    "own_parameters",
    "refuse_parameters",
    "refuse_warpers",
    "without_warpers",
]


@dataclass(frozen=True, slots=True)
class _Warper:
    """One of the processors that Transformers adds because of a sampling parameter."""

    argument: str
    """The parameter of ``generate``."""
    attribute: str
    """Where the processor keeps its value."""
    option: str = ""
    """Our option with the same meaning; empty if there is none."""


_WARPERS: Final[Mapping[str, _Warper]] = {
    "TemperatureLogitsWarper": _Warper("temperature", "temperature", "qr_fixed_temperature"),
    "TopKLogitsWarper": _Warper("top_k", "top_k", "qr_top_k"),
    "TopPLogitsWarper": _Warper("top_p", "top_p", "qr_top_p"),
    "MinPLogitsWarper": _Warper("min_p", "min_p", "qr_min_p"),
    "TopHLogitsWarper": _Warper("top_h", "top_h"),
    "TypicalLogitsWarper": _Warper("typical_p", "mass"),
    "EpsilonLogitsWarper": _Warper("epsilon_cutoff", "epsilon"),
    "EtaLogitsWarper": _Warper("eta_cutoff", "epsilon"),
}
"""By name of the class: not every release of Transformers has all of them."""

_NEUTRAL: Final[Mapping[str, tuple[float, ...]]] = {
    "temperature": (1.0,),
    "top_k": (0,),
    "top_p": (1.0,),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}
"""By parameter, the values with which it does nothing."""

NEUTRAL_ARGUMENTS: Final[Mapping[str, float | None]] = {
    each.argument: _NEUTRAL.get(each.argument, (None,))[0] for each in _WARPERS.values()
}
"""Arguments of ``generate`` that switch all of them off."""


def refuse_warpers(processors: Iterable[Any]) -> None:
    """Refuses a list of logits processors with one of Transformers' own sampling parameters.

    Raises:
        ConfigError: Naming the parameter, its value and our option.
    """
    for processor in processors:
        warper = _warper(processor)
        if warper is not None:
            raise _refusal(warper, _value(processor, warper))


def refuse_parameters(arguments: Mapping[str, Any], *, follow: bool) -> None:
    """Refuses Transformers' own sampling parameters among the arguments of a call.

    Without ``do_sample=True`` Transformers would ignore them silently.

    Args:
        arguments: Those of ``generate``.
        follow: Whether requests may follow them, or are left to Transformers.

    Raises:
        ConfigError: Naming the parameter, its value and our option.
    """
    for warper in () if follow else _WARPERS.values():
        value = arguments.get(warper.argument)
        if value is not None and value not in _NEUTRAL.get(warper.argument, ()):
            raise _refusal(warper, value)


def own_parameters(config: Any) -> dict[str, Any]:
    """Returns those of Transformers' own sampling parameters that do something, by name.

    Args:
        config: A ``GenerationConfig``.
    """
    values = {each.argument: getattr(config, each.argument, None) for each in _WARPERS.values()}
    return {
        name: value
        for name, value in values.items()
        if value is not None and value not in _NEUTRAL.get(name, ())
    }


def followed(processors: Iterable[Any], *, do_sample: bool) -> EngineFields:
    """Returns the values of Transformers' own sampling parameters, for requests that follow them.

    Args:
        processors: Its logits processors; a parameter without one is neutral.
        do_sample: Whether it would sample; otherwise it would take the most probable token, as at
            temperature 0.

    Raises:
        ConfigError: For a parameter that qr-sampler has no counterpart of, or that acts twice.
    """
    if not do_sample:
        return EngineFields(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0)
    values: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    taken: set[str] = set()
    for processor in processors:
        warper = _warper(processor)
        if warper is not None:
            if not warper.option or warper.argument in taken:
                refuse_warpers([processor])
            taken.add(warper.argument)
            values[warper.argument] = _value(processor, warper)
    return EngineFields(**values)


def without_warpers(processors: Iterable[Any]) -> list[Any]:
    """Returns *processors* without those of Transformers' own sampling parameters."""
    return [processor for processor in processors if _warper(processor) is None]


def _refusal(warper: _Warper, value: Any) -> ConfigError:
    said = f"{warper.argument}={value}"
    ours = (
        f"pass do_sample=False, which switches them off, and {warper.option}={value} to have "
        "qr-sampler do the same; or do_sample=True with qr_follow_request=1, which takes them over"
        if warper.option
        else "qr-sampler has no such filter, so leave it out or pass do_sample=False"
    )
    return ConfigError(
        f"{said}: Transformers' own sampling parameters (from the call, the model's "
        f"generation_config or its defaults) would act besides those of qr-sampler; {ours}"
    )


def _warper(processor: Any) -> _Warper | None:
    return _WARPERS.get(type(processor).__name__)


def _value(processor: Any, warper: _Warper) -> Any:
    """Returns the value of its parameter; some processors keep it in a tensor."""
    value: Any = getattr(processor, warper.attribute, None)
    return value.item() if hasattr(value, "item") else value
