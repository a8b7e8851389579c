# SPDX-License-Identifier: Apache-2.0
"""Which amplifiers understand which sources: some deliver bytes, others uniform numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from qr_sampler.components.sources import create_source
from qr_sampler.entropy.fallback import FallbackEntropySource
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler.settings import END_REQUEST, RAISE_ERROR, Settings

__all__ = ["TAKES_NUMBERS", "check_pair", "check_request_pair"]

TAKES_NUMBERS: Final = "server"
"""The amplifier of sources that :attr:`~qr_sampler.EntropySource.integrates`."""


def check_pair(source: str, integrates: bool, amplifier: str) -> None:
    """Refuses an amplifier that takes the draws of a source for something else.

    Args:
        source: Name of the source.
        integrates: Whether it delivers uniform numbers instead of bytes.
        amplifier: Name of the amplifier.

    Raises:
        ConfigError: Saying which one fits, by the names of settings.
    """
    if integrates and amplifier != TAKES_NUMBERS:
        raise ConfigError(
            f"the source {source!r} delivers uniform numbers, not bytes for the amplifier "
            f"{amplifier!r}; set QR_SIGNAL_AMPLIFIER_TYPE=server and QR_SAMPLE_COUNT=8"
        )
    if not integrates and amplifier == TAKES_NUMBERS:
        raise ConfigError(
            f"the amplifier 'server' takes uniform numbers and the source {source!r} delivers "
            "bytes; choose another QR_SIGNAL_AMPLIFIER_TYPE, or QR_GRPC_PROFILE=qr_purity"
        )


def check_request_pair(
    settings: Settings,
    source: str,
    amplifier: str,
    sources: Mapping[str, EntropySource] | None = None,
) -> None:
    """Refuses a request whose amplifier does not understand its source or what takes over from it.

    The configured pair was looked at when the engine started, so that only a request which chooses
    another one costs a look at the source: it is constructed, which draws nothing.

    Args:
        settings: The deployment's settings.
        source: Name of the source that the request draws from.
        amplifier: Name of its amplifier.
        sources: The sources of the deployment by name, where they exist already.

    Raises:
        ConfigError: Naming the keys and the remedy.
    """
    known = _with_spares(sources or {})
    if (source, amplifier) == (settings.entropy_source_type, settings.signal_amplifier_type):
        return
    if _delivers_numbers(source, settings, known) != (amplifier == TAKES_NUMBERS):
        fitting = (
            "the source delivers bytes, so choose another amplifier"
            if amplifier == TAKES_NUMBERS
            else "the source delivers uniform numbers, so pass qr_signal_amplifier_type=server and "
            "qr_sample_count=8"
        )
        raise ConfigError(
            f"qr_entropy_source={source!r} with qr_signal_amplifier_type={amplifier!r}: {fitting}"
        )
    spare = settings.fallback_mode
    if spare in (RAISE_ERROR, END_REQUEST) or amplifier == TAKES_NUMBERS:
        return
    if _delivers_numbers(spare, settings, known):
        raise ConfigError(
            f"qr_signal_amplifier_type={amplifier!r}: the source that takes over on failure "
            f"({spare!r}, QR_FALLBACK_MODE) delivers uniform numbers; pass "
            "qr_signal_amplifier_type=server and qr_sample_count=8"
        )


def _with_spares(sources: Mapping[str, EntropySource]) -> dict[str, EntropySource]:
    """Returns *sources* with those that take over from them."""
    wrapped = [each for each in sources.values() if isinstance(each, FallbackEntropySource)]
    return {**{each.fallback.name: each.fallback for each in wrapped}, **sources}


def _delivers_numbers(source: str, settings: Settings, known: Mapping[str, EntropySource]) -> bool:
    if source in known:
        return known[source].integrates
    if source == settings.entropy_source_type:
        return settings.signal_amplifier_type == TAKES_NUMBERS
    return _integrates(source, settings)


@lru_cache(maxsize=64)
def _integrates(source: str, settings: Settings) -> bool:
    """Returns whether *source* delivers numbers, as it is configured while *settings* hold."""
    try:
        return bool(create_source(source).integrates)
    except QRSamplerError as error:
        raise ConfigError(f"{error}") from error
