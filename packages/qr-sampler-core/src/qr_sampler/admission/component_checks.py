# SPDX-License-Identifier: Apache-2.0
"""Whether the components that parameters name can be used, found out before any step needs them."""

from __future__ import annotations

from typing import Final

from qr_sampler.amplification.base import SignalAmplifier
from qr_sampler.components.amplifiers import amplifier_named
from qr_sampler.components.strategies import strategy_named
from qr_sampler.errors import ConfigError, QRSamplerError, shown
from qr_sampler.foreign import is_signal, plain_text, words_of
from qr_sampler.settings import SamplingParameters, Settings, public_name

__all__ = ["check_components"]

_MAX_REFUSAL_CHARACTERS: Final = 2048
"""Longest text of a component that a refusal repeats; ours name every possible value."""


def check_components(parameters: SamplingParameters, settings: Settings, *, prefix: str) -> None:
    """Imports and constructs the components that *parameters* name, so that no later step has to.

    Args:
        parameters: What names them.
        settings: What configures them.
        prefix: How to name a field in an error: ``"qr_"`` for a request, ``"QR_"`` for a variable.

    Raises:
        ConfigError: Naming the field, its value and what is wrong with the component, or with the
            length of the blocks that the amplifier would receive.
    """
    name = parameters.signal_amplifier_type
    try:
        amplifier = amplifier_named(name, settings)
    # A third-party constructor can fail in any way; the request is refused with what it said.
    except BaseException as error:
        public = public_name("signal_amplifier_type", prefix)
        raise ConfigError(f"{public}={shown(name)}: {_failure(error)}") from error
    _check_resolution(amplifier, parameters, settings, prefix)
    name = parameters.temperature_strategy
    try:
        strategy_named(name)
    except BaseException as error:
        public = public_name("temperature_strategy", prefix)
        raise ConfigError(f"{public}={shown(name)}: {_failure(error)}") from error


def _check_resolution(
    amplifier: SignalAmplifier, parameters: SamplingParameters, settings: Settings, prefix: str
) -> None:
    """Refuses a block that the amplifier cannot turn into a number that is uniform enough."""
    size = parameters.sample_count
    public = f"{public_name('sample_count', prefix)}={size}"
    try:
        amplifier.check_block(size)
        resolution = amplifier.resolution(size)
        fine = resolution is None or bool(resolution.ks_distance <= settings.max_ks_distance)
    # As above: what a third-party amplifier says becomes the refusal.
    except BaseException as error:
        raise ConfigError(f"{public}: {_failure(error)}") from error
    if resolution is None or fine:
        return
    baseline = " a longer baseline," if resolution.calibration_error else ""
    raise ConfigError(
        f"{public}: with {parameters.signal_amplifier_type} u would be "
        f"{resolution.ks_distance:.3g} away from uniform (Kolmogorov distance) and the operator "
        f"allows {settings.max_ks_distance:.3g}; use a longer block,{baseline} another amplifier, "
        "or a larger QR_MAX_KS_DISTANCE"
    )


def _failure(error: BaseException) -> str:
    """Returns what *error* says, with its type unless it is one of ours and says it all.

    Raises:
        BaseException: *error*, when a signal to this process has raised it.
    """
    if is_signal(error):
        raise error
    if isinstance(error, QRSamplerError):
        return plain_text(str(error), limit=_MAX_REFUSAL_CHARACTERS)
    return words_of(error)
