# SPDX-License-Identifier: Apache-2.0
"""Temperature strategies by name, each constructed once and then shared.

They are stateless, so admission, which tries whether one can be constructed, and the planner, which
uses it, share an instance: a costly constructor never runs once per request. Those of other
projects come guarded: what they do wrong in a step is a :class:`~qr_sampler.ComponentError`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from qr_sampler.components.registry import Registry
from qr_sampler.foreign import is_ours
from qr_sampler.temperature.base import TemperatureStrategy
from qr_sampler.temperature.guard import GuardedStrategy

__all__ = ["TEMPERATURE_STRATEGIES", "strategy_named"]

# mypy's type-abstract check forbids naming an abstract class where type[T] is expected, although
# only issubclass() is ever asked of it.
TEMPERATURE_STRATEGIES: Final[Registry[TemperatureStrategy]] = Registry(
    "temperature strategy",
    "qr_sampler.temperature_strategies",
    TemperatureStrategy,  # type: ignore[type-abstract]
)


def strategy_named(name: str) -> TemperatureStrategy:
    """Returns the temperature strategy called *name*.

    Raises:
        PluginError: When it is unknown, contested or broken. Its constructor may raise anything.
    """
    return _strategy(TEMPERATURE_STRATEGIES.load(name), name)


@lru_cache(maxsize=64)
def _strategy(kind: type[TemperatureStrategy], name: str) -> TemperatureStrategy:
    strategy: object = kind.from_environment()
    if not isinstance(strategy, TemperatureStrategy):
        raise TypeError(f"from_environment() returned {type(strategy).__name__}, not a strategy")
    return strategy if is_ours(strategy) else GuardedStrategy(strategy, name)
