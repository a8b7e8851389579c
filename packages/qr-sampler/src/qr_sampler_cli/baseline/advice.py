# SPDX-License-Identifier: Apache-2.0
"""Advice on a baseline: which amplifiers the settings would admit with it, and how to set it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from qr_sampler.admission.component_checks import check_components
from qr_sampler.amplification import (
    Baseline,
    BitZScoreAmplifier,
    ECDFAmplifier,
    Resolution,
    SignalAmplifier,
    ZScoreMeanAmplifier,
)
from qr_sampler.amplification.baseline import calibration_error
from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings

__all__ = ["next_step", "warning_before"]

_AMPLIFIERS: Final[Mapping[str, Callable[[Baseline], SignalAmplifier]]] = {
    "zscore_mean": lambda measured: ZScoreMeanAmplifier(baseline=measured),
    "bit_zscore": lambda measured: BitZScoreAmplifier(baseline=measured),
    "ecdf": ECDFAmplifier,
}
"""Amplifiers that refer to a baseline."""
_RESERVE: Final = 1.1
"""The gaps between the sums of a baseline depend on chance."""


def warning_before(blocks: int, block_bytes: int, allowed: float) -> str:
    """Returns why a baseline of that many blocks would be useless, or an empty string.

    Args:
        blocks: Blocks to measure.
        block_bytes: Bytes of each.
        allowed: ``QR_MAX_KS_DISTANCE``.
    """
    error = calibration_error(blocks, measured_block_bytes=block_bytes, block_bytes=block_bytes)
    if error <= allowed:
        return ""
    return (
        f"{blocks:,} blocks are too few for an amplifier (calibration error {error:.2g}, "
        f"QR_MAX_KS_DISTANCE {allowed:g}): they only give a look at the bytes"
    )


def next_step(measured: Baseline, output: Path) -> str:
    """Returns the shell commands that make amplifiers refer to the baseline in *output*.

    Nothing is suggested that the settings would not admit.
    """
    refused = {name: _refusal(name, measured, output) for name in _AMPLIFIERS}
    admitted = [name for name, reason in refused.items() if not reason]
    lines = []
    if admitted:
        lines.append(f"to use it with {' or '.join(admitted)} (QR_SIGNAL_AMPLIFIER_TYPE):")
        lines += _exports(measured, output)
    else:
        lines.append("too coarse for every amplifier (QR_MAX_KS_DISTANCE):")
    lines += (f"  not with {name}: {reason}" for name, reason in refused.items() if reason)
    return "\n".join(lines)


def _exports(measured: Baseline, output: Path) -> Iterable[str]:
    settings = Settings.load()
    variables = {"QR_BASELINE_FILE": str(output.resolve())}
    # What the settings name already needs no saying.
    if measured.source != settings.entropy_source_type:
        variables["QR_ENTROPY_SOURCE_TYPE"] = measured.source
    if measured.block_bytes != settings.sample_count:
        variables["QR_SAMPLE_COUNT"] = str(measured.block_bytes)
    return (f"  export {name}={shlex.quote(value)}" for name, value in variables.items())


def _refusal(name: str, measured: Baseline, output: Path) -> str:
    """Returns why the deployment would refuse the amplifier *name*, or an empty string."""
    allowed = Settings.load().max_ks_distance
    amplifier = _AMPLIFIERS[name](measured)
    resolution = amplifier.resolution(measured.block_bytes)
    lattice = amplifier.without_baseline().resolution(measured.block_bytes)
    if resolution is not None and lattice is not None and resolution.ks_distance > allowed:
        return _too_coarse(resolution, lattice.ks_distance, measured.blocks, allowed)
    try:
        settings = Settings.load(
            baseline_file=output,
            entropy_source_type=measured.source,
            sample_count=measured.block_bytes,
            signal_amplifier_type=name,
        )
        check_components(settings, settings, prefix="QR_")
    except ConfigError as error:
        return str(error)
    return ""


def _too_coarse(resolution: Resolution, lattice: float, blocks: int, allowed: float) -> str:
    """Returns the measurement, with more or longer blocks, that would be admitted.

    Args:
        resolution: The resolution of the amplifier with the baseline.
        lattice: Distance that blocks of the length have in any case.
        blocks: Number of measured blocks.
        allowed: ``QR_MAX_KS_DISTANCE``.
    """
    distance = f"u {resolution.ks_distance:.2g} off uniform, {allowed:g} allowed"
    if lattice >= allowed:
        return f"{distance}; measure longer blocks"
    # The error falls with the square root of the number of blocks, and what the gaps between the
    # ranks of ecdf add falls with the number itself.
    gaps = max(0.0, resolution.ks_distance - resolution.calibration_error - lattice)
    needed = _blocks_for(
        resolution.calibration_error * math.sqrt(blocks), gaps * blocks, allowed - lattice
    )
    return f"{distance}; measure {_rounded_up(_RESERVE * needed):,} blocks"


def _blocks_for(error: float, gaps: float, allowed: float) -> float:
    """Returns the n for which error / sqrt(n) + gaps / n is *allowed*; quadratic in its root."""
    return ((error + math.sqrt(error**2 + 4.0 * allowed * gaps)) / (2.0 * allowed)) ** 2


def _rounded_up(count: float) -> int:
    """Returns the next number with two significant digits."""
    unit: int = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / unit) * unit
