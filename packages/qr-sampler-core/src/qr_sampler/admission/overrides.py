# SPDX-License-Identifier: Apache-2.0
"""Per-request options: the ``qr_*`` keys that a client sends along with a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from qr_sampler.admission.component_checks import check_components
from qr_sampler.components.pairing import check_request_pair
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import ConfigError, shown
from qr_sampler.settings import (
    SamplingParameters,
    Settings,
    describe_validation_error,
)

__all__ = [
    "BYPASS_KEY",
    "FOLLOW_KEY",
    "KEY_PREFIX",
    "LABEL_KEYS",
    "MAX_LABEL_LENGTH",
    "SOURCE_KEY",
    "SWITCH_KEYS",
    "TEMPERATURE_KEYS",
    "EngineFields",
    "RequestOptions",
    "resolve_request",
]

KEY_PREFIX: Final = "qr_"
"""Prefix of our keys; all others belong to other components and are ignored."""

LABEL_KEYS: Final = ("qr_request_key", "qr_trial", "qr_condition")
"""Keys that do not influence sampling and travel into the records."""

MAX_LABEL_LENGTH: Final = 256
"""Longest label in characters: it is repeated in the record of every token."""

BYPASS_KEY: Final = "qr_bypass"
"""Key that leaves a request to the host engine."""

FOLLOW_KEY: Final = "qr_follow_request"
"""Key that says whether the ordinary fields of the request are followed."""

SWITCH_KEYS: Final = (BYPASS_KEY, FOLLOW_KEY)
"""Keys that are true or false."""

SOURCE_KEY: Final = "qr_entropy_source"
"""Key that chooses a source."""

_MAX_LABEL_NUMBER: Final = 2**63 - 1
"""Largest label that is a whole number, and with a minus sign the smallest: between the processes
of an engine numbers have 64 bits."""

TEMPERATURE_KEYS: Final = frozenset({"qr_fixed_temperature", "qr_temperature_strategy"})
"""Keys of which one is enough for the ordinary temperature not to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFields:
    """The ordinary sampling fields of a request, as the host engine understood them."""

    temperature: float
    """Temperature; 0 means greedy."""
    top_p: float
    """Nucleus probability."""
    top_k: int
    """Number of most probable tokens; 0 or -1 means all."""
    min_p: float
    """Probability relative to the most probable token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """The options of one request, checked and complete."""

    parameters: SamplingParameters
    """How its tokens are sampled."""
    source: str
    """Name of the entropy source that decides them."""
    left_to_engine: bool = False
    """Whether the host engine samples its tokens instead; then nothing is drawn or recorded."""
    request_key: str | None = None
    """The client's name for the request."""
    trial: str | None = None
    """The client's trial label."""
    condition: str | None = None
    """The client's condition label."""


def resolve_request(
    settings: Settings,
    extra_args: Mapping[Any, Any] | None,
    engine_fields: EngineFields | None = None,
    sources: Mapping[str, EntropySource] | None = None,
) -> RequestOptions:
    """Returns the options of one request.

    Each value is taken from the request's ``qr_*`` key, else, when it follows the ordinary fields,
    from those, else from the deployment's settings. A followed temperature of 0 is greedy: the
    engine chooses the most probable token and nothing is drawn.

    What this function accepts cannot fail later: values are validated, the amplifier and the
    temperature strategy are imported here, and the amplifier understands the source.

    Args:
        settings: The deployment's settings; never modified.
        extra_args: The request's arguments. Keys without the ``qr_`` prefix are ignored, unless
            they are one of ours in another spelling.
        engine_fields: The request's ordinary fields, needed to follow them.
        sources: The sources of the deployment by name, where they exist already; otherwise those
            that the request names are looked up.

    Raises:
        ConfigError: Naming the key, its value and the remedy.
    """
    ours = _ours(extra_args or {})
    labels = {key: _label(key, ours.pop(key)) for key in LABEL_KEYS if key in ours}
    switches = {key: _switch(key, ours.pop(key)) for key in SWITCH_KEYS if key in ours}
    source = _source(settings, ours.pop(SOURCE_KEY, settings.entropy_source_type))
    followed: dict[str, Any] = {}
    left_to_engine = switches.get(BYPASS_KEY, False)
    if switches.get(FOLLOW_KEY, settings.follow_request):
        fields = _known(engine_fields)
        left_to_engine = left_to_engine or _greedy(ours, fields)
        # The ordinary fields of what the engine samples itself are the engine's to judge.
        followed = {} if left_to_engine else _followed(ours, fields)
    parameters = _parameters(settings, ours, followed) if ours or followed else settings.sampling
    if not left_to_engine:
        check_request_pair(settings, source, parameters.signal_amplifier_type, sources)
    return RequestOptions(
        parameters=parameters,
        source=source,
        left_to_engine=left_to_engine,
        request_key=labels.get("qr_request_key"),
        trial=labels.get("qr_trial"),
        condition=labels.get("qr_condition"),
    )


def _ours(extra_args: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns the arguments that are ours; refuses those that only look as if they were not."""
    ours: dict[str, Any] = {}
    for key, value in extra_args.items():
        if not isinstance(key, str):
            continue
        if key.startswith(KEY_PREFIX):
            ours[key] = value
        elif key.strip().lower().startswith(KEY_PREFIX) or _bare(key) in _bare_keys():
            raise _unknown_key(key, value)
    return ours


def _bare(key: str) -> str:
    """Returns what is left of a key when case, spaces, hyphens and underscores do not count."""
    return "".join(filter(str.isalnum, key[:MAX_LABEL_LENGTH])).lower()


@lru_cache(maxsize=1)
def _bare_keys() -> dict[str, str]:
    """Returns the keys that a request may have, by what is left of them."""
    parameters = (KEY_PREFIX + name for name in SamplingParameters.model_fields)
    allowed = sorted([*parameters, *LABEL_KEYS, *SWITCH_KEYS, SOURCE_KEY])
    return {_bare(key): key for key in allowed}


def _unknown_key(key: str, value: Any) -> ConfigError:
    """Returns the refusal of a key, with the one that was probably meant."""
    allowed = _bare_keys()
    near = get_close_matches(_bare(key), allowed, n=1, cutoff=0.75)
    advice = f"did you mean {allowed[near[0]]}? A" if near else "a"
    name = key if key.isascii() and key.isidentifier() and len(key) < 80 else shown(key)
    return ConfigError(
        f"{name}={shown(value)}: unknown key; {advice} request may set "
        f"{', '.join(allowed.values())}"
    )


def _known(engine_fields: EngineFields | None) -> EngineFields:
    if engine_fields is None:
        raise ConfigError(
            "qr_follow_request: the ordinary fields of the request are not known here; pass 0, or "
            "unset QR_FOLLOW_REQUEST"
        )
    return engine_fields


def _greedy(ours: Mapping[str, Any], fields: EngineFields) -> bool:
    """Whether the ordinary temperature counts, and says that nothing is to be drawn."""
    return fields.temperature == 0 and not ours.keys() & TEMPERATURE_KEYS


def _followed(ours: Mapping[str, Any], fields: EngineFields) -> dict[str, Any]:
    """Returns the parameters that the ordinary *fields* decide: those without a key in *ours*."""
    values: dict[str, Any] = {"top_p": fields.top_p, "top_k": fields.top_k, "min_p": fields.min_p}
    if not ours.keys() & TEMPERATURE_KEYS:
        values.update(temperature_strategy="fixed", fixed_temperature=fields.temperature)
    return {name: value for name, value in values.items() if KEY_PREFIX + name not in ours}


def _parameters(
    settings: Settings, overrides: Mapping[str, Any], followed: Mapping[str, Any]
) -> SamplingParameters:
    values = {**settings.sampling.model_dump(), **_checked_followed(followed)}
    for key, value in overrides.items():
        values[_field_name(key, value)] = value
    try:
        parameters = SamplingParameters.model_validate(values)
    except ValidationError as error:
        message = describe_validation_error(error, SamplingParameters, prefix=KEY_PREFIX)
        raise ConfigError(message) from error
    _check_block(parameters, settings)
    check_components(parameters, settings, prefix=KEY_PREFIX)
    return parameters


def _checked_followed(followed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns *followed* if all of its values are in range; names the ordinary field otherwise."""
    try:
        SamplingParameters.model_validate(followed)
    except ValidationError as error:
        message = describe_validation_error(error, SamplingParameters, prefix="")
        raise ConfigError(
            message.replace("fixed_temperature=", "temperature=")
            + "; change the field, or pass qr_follow_request=0"
        ) from error
    return followed


def _switch(key: str, value: Any) -> bool:
    """Returns the value of a boolean key; over HTTP there are no booleans."""
    switch = {"1": True, "true": True, "0": False, "false": False}.get(_as_text(value))
    if switch is None:
        raise ConfigError(f"{key}={shown(value)}: expected 0 or 1, or 'true' or 'false'")
    return switch


def _as_text(value: Any) -> str:
    if isinstance(value, (bool, int, str)):
        # Python refuses to print integers of more than some thousand digits.
        return "" if isinstance(value, int) and abs(value) > 1 else str(value).lower()
    return ""


def _source(settings: Settings, value: Any) -> str:
    if not isinstance(value, str) or value not in settings.selectable_sources:
        raise ConfigError(
            f"{SOURCE_KEY}={shown(value)}: not a source that the operator has declared; choose one "
            f"of {', '.join(settings.selectable_sources)} (QR_REQUEST_ENTROPY_SOURCES declares "
            "more)"
        )
    return value


def _field_name(key: str, value: Any) -> str:
    field = key.removeprefix(KEY_PREFIX)
    if field in SamplingParameters.model_fields:
        return field
    if field in Settings.model_fields:
        raise ConfigError(
            f"{key}={shown(value)}: this is set by the operator (QR_{field.upper()}) and cannot be "
            "changed by a request; remove the key"
        )
    raise _unknown_key(key, value)


def _check_block(parameters: SamplingParameters, settings: Settings) -> None:
    if parameters.sample_count > settings.max_sample_count:
        raise ConfigError(
            f"qr_sample_count={parameters.sample_count}: the operator allows at most "
            f"{settings.max_sample_count} bytes per token (QR_MAX_SAMPLE_COUNT)"
        )


def _label(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(f"{key}={shown(value)}: expected text or a number")
    if isinstance(value, int) and abs(value) > _MAX_LABEL_NUMBER:
        raise ConfigError(
            f"{key}={shown(value)}: expected a number within 64 bits; pass longer ones as text"
        )
    text = str(value)
    if not 0 < len(text) <= MAX_LABEL_LENGTH:
        raise ConfigError(f"{key} has {len(text)} characters; expected 1 to {MAX_LABEL_LENGTH}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(
            f"{key}={shown(value)}: half of a surrogate pair, which UTF-8 cannot encode; pass text"
        )
    return text
