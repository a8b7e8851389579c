# SPDX-License-Identifier: Apache-2.0
"""Amplifiers and temperature strategies, constructed once and then shared.

They are stateless, so admission, which tries whether a component can be constructed, and the
pipeline, which uses it, share one instance: a costly constructor never runs once per request.
Those of other projects come guarded: what they do wrong in a step is a
:class:`~qr_sampler.errors.ComponentError`.
"""

from __future__ import annotations

from functools import lru_cache

from qr_sampler.amplification.base import SignalAmplifier
from qr_sampler.amplification.guard import GuardedAmplifier
from qr_sampler.components.registry import AMPLIFIERS, TEMPERATURE_STRATEGIES
from qr_sampler.foreign import is_ours
from qr_sampler.settings import Settings
from qr_sampler.temperature.base import TemperatureStrategy
from qr_sampler.temperature.guard import GuardedStrategy

__all__ = ["amplifier_named", "strategy_named"]


def amplifier_named(name: str, settings: Settings) -> SignalAmplifier:
    """Returns the amplifier called *name*, configured for a deployment.

    Raises:
        PluginError: When it is unknown, contested or broken. Its constructor may raise anything.
    """
    return _amplifier(AMPLIFIERS.load(name), name, settings)


def strategy_named(name: str) -> TemperatureStrategy:
    """Returns the temperature strategy called *name*.

    Raises:
        PluginError: When it is unknown, contested or broken. Its constructor may raise anything.
    """
    return _strategy(TEMPERATURE_STRATEGIES.load(name), name)


@lru_cache(maxsize=64)
def _amplifier(kind: type[SignalAmplifier], name: str, settings: Settings) -> SignalAmplifier:
    amplifier: object = kind.from_settings(settings)
    if not isinstance(amplifier, SignalAmplifier):
        raise TypeError(f"from_settings() returned {type(amplifier).__name__}, not an amplifier")
    return amplifier if is_ours(amplifier) else GuardedAmplifier(amplifier, name)


@lru_cache(maxsize=64)
def _strategy(kind: type[TemperatureStrategy], name: str) -> TemperatureStrategy:
    strategy = kind()
    return strategy if is_ours(strategy) else GuardedStrategy(strategy, name)
