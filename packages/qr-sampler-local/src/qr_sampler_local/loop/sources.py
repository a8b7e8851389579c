# SPDX-License-Identifier: Apache-2.0
"""Which sources a sampler draws from: those that settings name, and those of the caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qr_sampler import (
    END_REQUEST,
    RAISE_ERROR,
    ConfigError,
    EntropySource,
    FallbackEntropySource,
    Settings,
)
from qr_sampler.errors import shown

__all__ = ["made_here", "own_sources", "settings_for"]


def own_sources(
    sources: Mapping[str, EntropySource] | Iterable[EntropySource] | None,
) -> dict[str, EntropySource]:
    """Returns the caller's sources by name.

    Args:
        sources: The sources, or a mapping whose keys are their names.

    Raises:
        ConfigError: When one is no source, or a name cannot be used or is not that of its source.
    """
    if sources is None:
        return {}
    if isinstance(sources, EntropySource):
        raise ConfigError(f"sources: {shown(sources.name)} alone; pass a list, [source]")
    listed = [*(sources.values() if isinstance(sources, Mapping) else sources)]
    for source in listed:
        if not isinstance(source, EntropySource):
            raise ConfigError(
                f"sources: {shown(source)} is no EntropySource; name sources that are installed in "
                "QR_ENTROPY_SOURCE_TYPE and QR_REQUEST_ENTROPY_SOURCES"
            )
    if isinstance(sources, Mapping):
        for name, source in sources.items():
            if source.name != name:
                raise ConfigError(
                    f"sources: {shown(name)} stands for a source that calls itself "
                    f"{shown(source.name)}; use that name"
                )
    by_name: dict[str, EntropySource] = {}
    for source in listed:
        _check_name(source.name, by_name)
        by_name[source.name] = source
    return by_name


def settings_for(settings: Settings | None, sources: Mapping[str, EntropySource]) -> Settings:
    """Returns the settings of a sampler, in which a sequence may choose each of *sources*.

    Args:
        settings: Those of the caller; ``None`` for those of the environment, in which the first of
            *sources*, if there are any, is the configured one.
        sources: The caller's own.

    Raises:
        ConfigError: When a setting is malformed.
    """
    if settings is None:
        settings = (
            Settings.load(entropy_source_type=next(iter(sources))) if sources else (Settings.load())
        )
    names = tuple(dict.fromkeys([*settings.selectable_sources, *sources]))
    if names == settings.selectable_sources:
        return settings
    return settings.model_copy(update={"request_entropy_sources": ",".join(names)})


def made_here(
    sources: Mapping[str, EntropySource], own: Mapping[str, EntropySource]
) -> list[EntropySource]:
    """Returns those of a sampler's sources, fallbacks included, that are not the caller's own.

    Args:
        sources: Those of the sampler, guarded and with their fallbacks.
        own: The caller's.
    """
    parts: list[EntropySource] = []
    for source in sources.values():
        if isinstance(source, FallbackEntropySource):
            parts += [source.primary, source.fallback]
        else:
            parts.append(source)
    return list({part.name: part for part in parts if part.name not in own}.values())


def _check_name(name: str, taken: Mapping[str, EntropySource]) -> None:
    if name in taken:
        raise ConfigError(f"sources: two are called {shown(name)}; give each a name of its own")
    if name in (RAISE_ERROR, END_REQUEST) or "," in name or name != name.strip() or not name:
        raise ConfigError(
            f"sources: {shown(name)} cannot be the name of a source, because settings would read "
            "it as something else; choose a word"
        )
