# SPDX-License-Identifier: Apache-2.0
"""Entropy sources by name, as the environment configures them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from qr_sampler.components.named_sources import declared_sources, named_class, renamed
from qr_sampler.components.registry import Registry
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import PluginLoadError, QRSamplerError, UnknownPluginError
from qr_sampler.foreign import is_signal, plain_text, words_of
from qr_sampler.settings.active_instance import Declaration, values_of

__all__ = ["ENTROPY_SOURCES", "create_source", "named_sources", "source_names"]

# mypy's type-abstract check forbids naming an abstract class where type[T] is expected, although
# only issubclass() is ever asked of it.
ENTROPY_SOURCES: Final[Registry[EntropySource]] = Registry(
    "entropy source",
    "qr_sampler.entropy_sources",
    EntropySource,  # type: ignore[type-abstract]
)


def named_sources() -> Mapping[str, Declaration]:
    """Returns the sources that have names of their own, by name.

    Raises:
        ConfigError: When one of them is malformed, or its name or kind cannot be used.
    """
    return declared_sources(ENTROPY_SOURCES)


def source_names() -> tuple[str, ...]:
    """Returns every name that the configuration may use for a source, sorted.

    Raises:
        ConfigError: When a named source is malformed, or its name or kind cannot be used.
    """
    return tuple(sorted({*ENTROPY_SOURCES.names(), *named_sources()}))


def create_source(name: str) -> EntropySource:
    """Returns the source called *name*, configured from the environment, its origin set.

    A source that is declared under a name of its own is configured from its declaration first.

    Raises:
        PluginError: When the source is unknown, contested or broken, or calls itself otherwise: its
            name is in every record.
        ConfigError: When one of its settings is malformed, or a declaration of named sources is.
    """
    declared = named_sources().get(name)
    kind_name = name if declared is None else declared.kind
    try:
        kind, plugin = ENTROPY_SOURCES.load(kind_name), ENTROPY_SOURCES.find(kind_name)
    except UnknownPluginError as error:
        raise UnknownPluginError(error.kind, error.name, source_names()) from None
    try:
        with values_of(declared):
            source = _made(kind, name, is_named=declared is not None)
    except QRSamplerError:
        raise
    # As for a module: it is reported with the distribution to repair.
    except BaseException as error:
        if is_signal(error):
            raise
        reason = words_of(error)
        raise PluginLoadError(
            ENTROPY_SOURCES.kind, kind_name, plugin.distribution, reason
        ) from error
    source.origin = plugin.origin
    if declared is not None:
        source.origin = dataclasses.replace(plugin.origin, kind=kind_name)
    return source


def _made(kind: type[EntropySource], name: str, *, is_named: bool) -> EntropySource:
    """Returns the source that *kind* configures, called *name*."""
    source: object = (named_class(kind, name) if is_named else kind).from_environment()
    if not isinstance(source, EntropySource):
        raise TypeError(f"from_environment() returned {type(source).__name__}, not a source")
    if is_named:
        return renamed(source, name)
    if source.name != name:
        raise ValueError(f"it calls itself {plain_text(source.name)!r}")
    return source
