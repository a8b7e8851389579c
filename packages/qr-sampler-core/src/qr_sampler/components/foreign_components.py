# SPDX-License-Identifier: Apache-2.0
"""What a ledger says of the amplifiers and temperature strategies of other projects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from qr_sampler.amplification.guard import GuardedAmplifier
from qr_sampler.components.amplifiers import AMPLIFIERS, amplifier_named
from qr_sampler.components.registry import Plugin, Registry
from qr_sampler.components.strategies import TEMPERATURE_STRATEGIES, strategy_named
from qr_sampler.foreign import is_our_package, is_signal, plain_text
from qr_sampler.settings import Settings
from qr_sampler.temperature.guard import GuardedStrategy

__all__ = ["MOST_COMPONENTS", "foreign_components"]

MOST_COMPONENTS: Final = 100
"""Number of components of other projects that a ledger names."""


def foreign_components(settings: Settings) -> list[dict[str, Any]]:
    """Returns what can be said of the components of other projects that requests may choose.

    Those that a deployment has chosen come first, with their settings. The others are named from
    what their distributions declare, and nothing of them is imported; their settings are ``None``,
    as they are where a component fails to say.

    Args:
        settings: The deployment's settings.

    Returns:
        For each ``component`` (``signal_amplifier`` or ``temperature_strategy``), ``name``,
        ``distribution``, ``version`` and ``settings``.
    """
    amplifier, strategy = settings.signal_amplifier_type, settings.temperature_strategy
    found = [
        *_described("signal_amplifier", AMPLIFIERS, amplifier, lambda: _of_amplifier(settings)),
        *_described(
            "temperature_strategy", TEMPERATURE_STRATEGIES, strategy, lambda: _of_strategy(settings)
        ),
    ]
    found.sort(key=lambda component: component["settings"] is None)
    return found[:MOST_COMPONENTS]


def _described(
    kind: str,
    registry: Registry[Any],
    chosen: str,
    settings_of_chosen: Callable[[], dict[str, object] | None],
) -> Iterator[dict[str, Any]]:
    """Yields what is known of the components in a registry that one distribution claims each."""
    plugins = registry.plugins()
    claims = Counter(plugin.name for plugin in plugins)
    for plugin in plugins:
        if claims[plugin.name] > 1 or is_our_package(_package_of(plugin)):
            continue
        yield {
            "component": kind,
            "name": plain_text(plugin.name),
            "distribution": plain_text(plugin.origin.distribution),
            "version": plain_text(plugin.origin.version),
            "settings": _tried(settings_of_chosen) if plugin.name == chosen else None,
        }


def _package_of(plugin: Plugin) -> str:
    return plugin.target.partition(":")[0].partition(".")[0]


def _tried(settings_of_chosen: Callable[[], dict[str, object] | None]) -> dict[str, object] | None:
    """Returns the settings of a component, unless it cannot even be made."""
    try:
        found: dict[str, object] | None = settings_of_chosen()
    # It can fail in any way. Requests that need it are refused with what it said.
    except BaseException as error:
        if is_signal(error):
            raise
        return None
    return found


def _of_amplifier(settings: Settings) -> dict[str, object] | None:
    amplifier = amplifier_named(settings.signal_amplifier_type, settings)
    return dict(amplifier.recorded_settings) if isinstance(amplifier, GuardedAmplifier) else None


def _of_strategy(settings: Settings) -> dict[str, object] | None:
    strategy = strategy_named(settings.temperature_strategy)
    return dict(strategy.recorded_settings) if isinstance(strategy, GuardedStrategy) else None
