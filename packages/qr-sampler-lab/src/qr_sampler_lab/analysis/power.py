# SPDX-License-Identifier: Apache-2.0
"""How many tokens give which power for the smallest effect of interest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from qr_sampler import RandomWalkAmplifier
from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.anytime import log_e_values
from qr_sampler_lab.analysis.intervals import wilson_interval
from qr_sampler_lab.analysis.results import Alternative, Interval, checked_alternative

__all__ = [
    "EProcessPower",
    "e_process_power",
    "effect_of_bit_bias",
    "effect_of_byte_mean",
    "location_power",
    "location_sample_size",
]

_MOST_TOKENS = 10**15
_PIECE = 2**20
"""Scores that are simulated at a time, 8 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EProcessPower:
    """What a simulation of an e-process found."""

    power: float
    """Share of runs that reached 1 / alpha."""
    interval: Interval
    """Wilson's interval of it."""
    median_tokens: float
    """Median of the tokens per arm used by all runs, which end at the maximum if not before."""
    runs: int
    """Number of simulated runs."""


def location_power(
    effect: float,
    n_arm: int,
    n_control: int | None = None,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> float:
    """Returns the power of the z-test of a mean, between two arms or against the ideal value.

    With ``d = effect / sqrt(1 / n_arm + 1 / n_control)`` and the critical value c it is
    ``Phi(d - c)``, on two sides plus ``Phi(-d - c)`` (Cohen, Statistical Power Analysis, 1988,
    chapter 2, with a known deviation).

    Args:
        effect: Shift of the mean in standard deviations of one token's number.
        n_arm: Tokens of the arm, >= 1.
        n_control: Tokens of its control, ``None`` for a comparison with the ideal value. Blocks of
            a baseline count as a control.
        alpha: Rate of false alarms.
        alternative: The side that counts; ``"less"`` expects a negative effect.

    Raises:
        ConfigError: When a number of tokens is not positive.

    Examples:
        >>> round(location_power(0.1, 2_000, alpha=0.05), 3)
        0.994
    """
    for name, value in (("n_arm", n_arm), ("n_control", n_control)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value}: use at least one token")
    variance = 1.0 / n_arm + (1.0 / n_control if n_control is not None else 0.0)
    return _normal_power(effect / math.sqrt(variance), alpha, alternative)


def location_sample_size(
    effect: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    ratio: float | None = 1.0,
) -> int:
    """Returns the tokens of an arm that reach *power*, the smallest number that does.

    Args:
        effect: Shift of the mean in standard deviations of one token's number, not 0.
        power: Wanted probability of an alarm, above *alpha* and below 1.
        alpha: Rate of false alarms.
        alternative: The side that counts.
        ratio: Tokens of the control per token of the arm; ``None`` for a comparison with the ideal
            value.

    Raises:
        ConfigError: When no number of tokens is enough, as when the effect is 0 or on the side that
            does not count.

    Examples:
        >>> location_sample_size(0.1, ratio=None), location_sample_size(0.1)
        (785, 1570)
    """
    if not alpha < power < 1.0 or (ratio is not None and not ratio > 0.0):
        raise ConfigError(
            f"power={power}, alpha={alpha}, ratio={ratio}: power lies between alpha and 1, and the "
            "ratio is positive"
        )
    widening = 1.0 if ratio is None else 1.0 + 1.0 / ratio

    def missing(tokens: float) -> float:
        return _normal_power(effect * math.sqrt(tokens / widening), alpha, alternative) - power

    if not missing(float(_MOST_TOKENS)) > 0.0:
        raise ConfigError(
            f"effect={effect}, alternative={alternative!r}: no number of tokens gives a power of "
            f"{power}; state an effect on the side that counts"
        )
    if missing(1.0) >= 0.0:
        return 1
    return math.ceil(optimize.brentq(missing, 1.0, float(_MOST_TOKENS), rtol=1e-12))


def e_process_power(
    effect: float,
    max_tokens: int,
    *,
    tau: float,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    paired: bool = True,
    runs: int = 2_000,
    rng: np.random.Generator | int = 0,
) -> EProcessPower:
    """Returns how often an e-process reaches 1 / alpha within *max_tokens*, by simulation.

    Args:
        effect: Shift in standard deviations of one score: of the arm against its control when
            *paired*, of all scores otherwise.
        max_tokens: Tokens per arm at which a run ends, >= 1.
        tau: As in :class:`~qr_sampler_lab.analysis.anytime.EProcess`.
        alpha: As there.
        alternative: As there.
        paired: Whether scores are differences of two arms divided by sqrt(2), which shrinks the
            effect by that.
        runs: Number of runs; 2,000 give a standard error of at most 1.1 %.
        rng: Generator or seed.

    Raises:
        ConfigError: When there is nothing to simulate.
    """
    if max_tokens < 1 or runs < 1 or not tau > 0.0:
        raise ConfigError(
            f"max_tokens={max_tokens}, runs={runs}, tau={tau}: all of them must be positive"
        )
    shift = effect / math.sqrt(2.0) if paired else effect
    generator = np.random.default_rng(rng)
    used = np.array(
        [_tokens_used(generator, shift, max_tokens, tau, alpha, alternative) for _ in range(runs)]
    )
    crossed = int((used > 0).sum())
    return EProcessPower(
        power=crossed / runs,
        interval=wilson_interval(crossed, runs),
        median_tokens=float(np.median(np.where(used > 0, used, max_tokens))),
        runs=runs,
    )


def effect_of_bit_bias(probability: float, block_bytes: int, *, number: str = "ones") -> float:
    """Returns how far bits that are one with *probability* move a number of a block.

    In standard deviations of what fair bits give, with e = probability - 1/2 and blocks of n bytes:

    * ``"ones"`` (statistic of bit_zscore): ``2 e sqrt(8 n)``.
    * ``"sum"`` (statistic of zscore_mean): ``255 e / 73.9 sqrt(n)``.
    * ``"walk"`` (statistic of random_walk): ``2 q sqrt(8 n) / b``, where walks to +-b end at the
      top with probability 1/2 + q, ``1 / (1 + ((1 - p) / p)**b)`` by the gambler's ruin, and a
      block holds 8 n / b**2 of them on average.
    * ``"walk_u"`` (u of random_walk): ``q sqrt(12)``, since the digits of u are these exits and
      ``sum_k q 2**-k = q``. All walks but the first few are lost to it.

    Args:
        probability: Of a one.
        block_bytes: Length n of a block.
        number: Which number.

    Raises:
        ConfigError: When the number is none of these.

    Examples:
        >>> round(effect_of_bit_bias(0.501, 13_312), 2)
        0.65
    """
    excess = probability - 0.5
    if number == "ones":
        return 2.0 * excess * math.sqrt(8 * block_bytes)
    if number == "sum":
        return effect_of_byte_mean(127.5 + 255.0 * excess, block_bytes)
    bound = RandomWalkAmplifier().bound(block_bytes)
    up = 1.0 / (1.0 + ((1.0 - probability) / probability) ** bound) - 0.5
    if number == "walk":
        return 2.0 * up * math.sqrt(8 * block_bytes) / bound
    if number == "walk_u":
        return up * math.sqrt(12.0)
    raise ConfigError(f"number={number!r}: use 'ones', 'sum', 'walk' or 'walk_u'")


def effect_of_byte_mean(mean: float, block_bytes: int) -> float:
    """Returns how far bytes of that mean move the z-score of the byte mean of a block.

    Examples:
        >>> round(effect_of_byte_mean(127.6, 10_240), 3)
        0.137
    """
    return (mean - 127.5) / math.sqrt((256.0**2 - 1.0) / 12.0) * math.sqrt(block_bytes)


def _normal_power(noncentrality: float, alpha: float, alternative: Alternative) -> float:
    if checked_alternative(alternative) == "two-sided":
        critical = -special.ndtri(alpha / 2.0)
        return float(
            special.ndtr(noncentrality - critical) + special.ndtr(-noncentrality - critical)
        )
    towards = noncentrality if alternative == "greater" else -noncentrality
    return float(special.ndtr(towards + special.ndtri(alpha)))


def _tokens_used(
    generator: np.random.Generator,
    shift: float,
    max_tokens: int,
    tau: float,
    alpha: float,
    alternative: Alternative,
) -> int:
    """Returns after how many scores one run reached 1 / alpha, 0 if it never did."""
    total = 0.0
    for start in range(0, max_tokens, _PIECE):
        n = np.arange(start + 1, min(start + _PIECE, max_tokens) + 1)
        sums = total + np.cumsum(generator.standard_normal(n.size) + shift)
        over = log_e_values(n, sums, tau=tau, alternative=alternative) >= -math.log(alpha)
        if over.any():
            return int(n[np.argmax(over)])
        total = float(sums[-1])
    return 0
