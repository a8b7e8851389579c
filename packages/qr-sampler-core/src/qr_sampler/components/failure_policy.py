# SPDX-License-Identifier: Apache-2.0
"""What happens when the configured source cannot deliver."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qr_sampler.components.pairing import check_pair
from qr_sampler.components.sources import create_source
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.entropy.fallback import FallbackEntropySource
from qr_sampler.entropy.guard import GuardedSource
from qr_sampler.entropy.source import EntropySource
from qr_sampler.health import HealthMonitor, HealthOptions, HealthPolicy
from qr_sampler.settings import END_REQUEST, RAISE_ERROR, Settings

__all__ = [
    "END_REQUEST",
    "RAISE_ERROR",
    "configured_source",
    "configured_sources",
    "health_options",
]


def configured_source(settings: Settings) -> EntropySource:
    """Returns the configured source of a deployment, as :func:`configured_sources` does."""
    return configured_sources(settings)[settings.entropy_source_type]


def configured_sources(
    settings: Settings,
    on_dropped: Callable[[DroppedBytes], object] | None = None,
    make_monitor: Callable[[HealthPolicy], HealthMonitor] = HealthMonitor,
    own: Mapping[str, EntropySource] | None = None,
) -> dict[str, EntropySource]:
    """Returns the sources of a deployment by name, the configured one first.

    Each is guarded, and wrapped in the fallback that the settings name. A fallback to the source
    itself would be no fallback, so such a pair is the bare source.

    Args:
        settings: The deployment's settings.
        on_dropped: Called with bytes that were drawn but not used, from any thread.
        make_monitor: Makes the health tests of a source.
        own: Sources by name that the caller has made; the others are made from the environment.

    Raises:
        PluginError: When a source is unknown, contested or broken.
        ConfigError: When a setting of a source or of the circuit breaker is malformed, or the
            configured amplifier does not understand the configured source or its fallback.
    """
    breaker = BreakerOptions.from_environment()
    health = health_options(settings, make_monitor)
    spare_name = settings.fallback_mode
    made = own or {}

    def guarded(name: str) -> EntropySource:
        source = made[name] if name in made else create_source(name)
        source.has_fallback = spare_name not in (RAISE_ERROR, END_REQUEST, name)
        return GuardedSource(source, settings.draw_timeout_ms, on_dropped, breaker, health)

    sources = {name: guarded(name) for name in settings.selectable_sources}
    amplifier = settings.signal_amplifier_type
    configured = sources[settings.entropy_source_type]
    check_pair(configured.name, configured.integrates, amplifier)
    if spare_name in (RAISE_ERROR, END_REQUEST):
        return sources
    spare = sources.get(spare_name) or guarded(spare_name)
    if spare.integrates:
        check_pair(spare.name, True, amplifier)
    return {
        name: source if name == spare_name else FallbackEntropySource(source, spare)
        for name, source in sources.items()
    }


def health_options(
    settings: Settings, make_monitor: Callable[[HealthPolicy], HealthMonitor] = HealthMonitor
) -> HealthOptions:
    """Returns how the sources of a deployment are watched.

    Args:
        settings: The deployment's settings.
        make_monitor: Makes the health tests of a source.
    """
    return HealthOptions(
        enabled=settings.health,
        min_entropy=settings.health_min_entropy,
        make_monitor=make_monitor,
    )
