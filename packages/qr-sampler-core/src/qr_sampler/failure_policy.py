# SPDX-License-Identifier: Apache-2.0
"""What happens when the configured source cannot deliver."""

from __future__ import annotations

from collections.abc import Callable

from qr_sampler.entropy.fallback import FallbackEntropySource
from qr_sampler.entropy.guard import DroppedBytes, GuardedSource
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import ConfigError
from qr_sampler.registry import create_source
from qr_sampler.settings import END_REQUEST, RAISE_ERROR, Settings

__all__ = ["END_REQUEST", "RAISE_ERROR", "configured_source", "configured_sources"]


def configured_source(settings: Settings) -> EntropySource:
    """Returns the configured source of a deployment, as :func:`configured_sources` does."""
    return configured_sources(settings)[settings.entropy_source_type]


def configured_sources(
    settings: Settings, on_dropped: Callable[[DroppedBytes], object] | None = None
) -> dict[str, EntropySource]:
    """Returns the sources of a deployment by name, the configured one first.

    Each is guarded, and wrapped in the fallback that the settings name. A fallback to the source
    itself would be no fallback, so such a pair is the bare source.

    Args:
        settings: The deployment's settings.
        on_dropped: Is told of bytes that sources delivered for nothing, from any thread.

    Raises:
        PluginError: When a source is unknown, contested or broken.
        ConfigError: When a setting of a source is malformed.
    """

    def guarded(name: str) -> EntropySource:
        return GuardedSource(create_source(name), settings.draw_timeout_ms, on_dropped)

    sources = {name: guarded(name) for name in settings.selectable_sources}
    _check_amplifier(settings, sources[settings.entropy_source_type])
    spare_name = settings.fallback_mode
    if spare_name in (RAISE_ERROR, END_REQUEST):
        return sources
    spare = sources.get(spare_name) or guarded(spare_name)
    return {
        name: source if name == spare_name else FallbackEntropySource(source, spare)
        for name, source in sources.items()
    }


def _check_amplifier(settings: Settings, source: EntropySource) -> None:
    """Refuses a configured source whose draws the configured amplifier does not understand."""
    name, takes_numbers = settings.signal_amplifier_type, settings.signal_amplifier_type == "server"
    if source.integrates and not takes_numbers:
        raise ConfigError(
            f"the source {source.name!r} delivers uniform numbers, not bytes for the amplifier "
            f"{name!r}; set QR_SIGNAL_AMPLIFIER_TYPE=server and QR_SAMPLE_COUNT=8"
        )
    if takes_numbers and not source.integrates:
        raise ConfigError(
            f"the amplifier 'server' takes uniform numbers and the source {source.name!r} delivers "
            "bytes; choose another QR_SIGNAL_AMPLIFIER_TYPE, or QR_GRPC_PROFILE=qr_purity"
        )
