# SPDX-License-Identifier: Apache-2.0
"""The power that a protocol gives to its smallest effect of interest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from qr_sampler_lab.analysis.power import (
    e_process_power,
    location_power,
    location_sample_size,
)
from qr_sampler_lab.experiments.protocol import Protocol

__all__ = ["PlannedPower", "effective_tokens", "power_of"]

_SIMULATED_TOKENS: Final = 20_000_000
"""Most tokens of all simulated runs together: seconds."""

_RUNS: Final = (100, 2_000)
"""Fewest and most simulated runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPower:
    """What the primary endpoint can find."""

    power: float
    """Probability of a result if the smallest effect of interest is there."""
    blocks_needed: int
    """Number of blocks that give the wanted power; by the rule of a fixed N."""
    method: str
    """How it was computed, in words."""


def effective_tokens(contrast: dict[str, float], tokens_per_arm: dict[str, int]) -> float:
    """Returns 1 / sum of w² / N over the arms: the tokens of one arm that would tell as much.

    The variance of a sum of weighted independent means, each of N tokens of variance 1, is the sum
    of w² / N (Maxwell & Delaney, Designing Experiments and Analyzing Data, 2004, chapter 4).

    Args:
        contrast: Weight w of every arm.
        tokens_per_arm: N of every arm.
    """
    variance = math.fsum(
        weight**2 / tokens_per_arm[arm] for arm, weight in sorted(contrast.items())
    )
    return 1.0 / variance


def power_of(protocol: Protocol) -> PlannedPower:
    """Returns the power of a protocol's primary endpoint.

    Raises:
        ConfigError: When no number of tokens gives the wanted power.
    """
    primary = protocol.primary
    effect = -primary.smallest_effect if primary.side == "less" else primary.smallest_effect
    tokens = effective_tokens(dict(primary.contrast), protocol.tokens_per_arm)
    needed = location_sample_size(
        effect, power=primary.power, alpha=primary.alpha, alternative=primary.side, ratio=None
    )
    blocks = math.ceil(protocol.design.blocks * needed / tokens)
    if protocol.stopping.rule == "e_value":
        return _of_e_process(protocol, effect, blocks)
    power = location_power(
        effect, max(1, math.floor(tokens)), alpha=primary.alpha, alternative=primary.side
    )
    return PlannedPower(power=power, blocks_needed=blocks, method="z-test of the contrast")


def _of_e_process(protocol: Protocol, effect: float, blocks: int) -> PlannedPower:
    primary, tau = protocol.primary, protocol.stopping.tau
    pairs = min(protocol.tokens_per_arm[arm] for arm in primary.contrast)
    fewest, most = _RUNS
    found = e_process_power(
        effect,
        pairs,
        tau=tau or 1.0,
        alpha=primary.alpha,
        alternative=primary.side,
        runs=max(fewest, min(most, _SIMULATED_TOKENS // pairs)),
    )
    interval = f"{found.interval.low:.3f} to {found.interval.high:.3f}"
    method = f"e-process of pairs of tokens, {found.runs} simulated runs, 95 % interval {interval}"
    return PlannedPower(power=found.power, blocks_needed=blocks, method=method)
