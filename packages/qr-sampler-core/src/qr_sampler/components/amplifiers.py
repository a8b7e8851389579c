# SPDX-License-Identifier: Apache-2.0
"""Signal amplifiers by name, constructed once per deployment and then shared.

They are stateless, so admission, which tries whether one can be constructed, and the pipeline,
which uses it, share an instance: a costly constructor never runs once per request. Those of other
projects come guarded: what they do wrong in a step is a :class:`~qr_sampler.ComponentError`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from qr_sampler.amplification.base import SignalAmplifier
from qr_sampler.amplification.guard import GuardedAmplifier
from qr_sampler.components.registry import Registry
from qr_sampler.foreign import is_ours
from qr_sampler.settings import Settings

__all__ = ["AMPLIFIERS", "amplifier_named"]

# mypy's type-abstract check forbids naming an abstract class where type[T] is expected, although
# only issubclass() is ever asked of it.
AMPLIFIERS: Final[Registry[SignalAmplifier]] = Registry(
    "signal amplifier",
    "qr_sampler.signal_amplifiers",
    SignalAmplifier,  # type: ignore[type-abstract]
)


def amplifier_named(name: str, settings: Settings) -> SignalAmplifier:
    """Returns the amplifier called *name*, configured for a deployment.

    Raises:
        PluginError: When it is unknown, contested or broken. Its constructor may raise anything.
    """
    return _amplifier(AMPLIFIERS.load(name), name, settings)


@lru_cache(maxsize=64)
def _amplifier(kind: type[SignalAmplifier], name: str, settings: Settings) -> SignalAmplifier:
    amplifier: object = kind.from_settings(settings)
    if not isinstance(amplifier, SignalAmplifier):
        raise TypeError(f"from_settings() returned {type(amplifier).__name__}, not an amplifier")
    return amplifier if is_ours(amplifier) else GuardedAmplifier(amplifier, name)
