# SPDX-License-Identifier: Apache-2.0
"""Entropy sources by name, as the environment configures them."""

from __future__ import annotations

from typing import Final

from qr_sampler.components.registry import Registry
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import PluginLoadError, QRSamplerError
from qr_sampler.foreign import is_signal, plain_text, words_of

__all__ = ["ENTROPY_SOURCES", "create_source"]

# mypy's type-abstract check forbids naming an abstract class where type[T] is expected, although
# only issubclass() is ever asked of it.
ENTROPY_SOURCES: Final[Registry[EntropySource]] = Registry(
    "entropy source",
    "qr_sampler.entropy_sources",
    EntropySource,  # type: ignore[type-abstract]
)


def create_source(name: str) -> EntropySource:
    """Returns the source called *name*, configured from the environment, its origin set.

    Raises:
        PluginError: When the source is unknown, contested or broken, or calls itself otherwise: its
            name is in every record.
        ConfigError: When one of its settings is malformed.
    """
    kind, plugin = ENTROPY_SOURCES.load(name), ENTROPY_SOURCES.find(name)
    try:
        source: object = kind.from_environment()
        if not isinstance(source, EntropySource):
            raise TypeError(f"from_environment() returned {type(source).__name__}, not a source")
        if source.name != name:
            raise ValueError(f"it calls itself {plain_text(source.name)!r}")
    except QRSamplerError:
        raise
    # As for a module: it is reported with the distribution to repair.
    except BaseException as error:
        if is_signal(error):
            raise
        reason = words_of(error)
        raise PluginLoadError(ENTROPY_SOURCES.kind, name, plugin.distribution, reason) from error
    source.origin = plugin.origin
    return source
