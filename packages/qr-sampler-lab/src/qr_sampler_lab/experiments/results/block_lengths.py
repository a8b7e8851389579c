# SPDX-License-Identifier: Apache-2.0
"""Influence or selection: how the mean z of arms changes with the length of their blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from qr_sampler.errors import ConfigError

__all__ = ["ArmMean", "BlockLengthResult", "compare_block_lengths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmMean:
    """The mean z of the tokens of one block length."""

    block_bytes: int
    """Bytes of a block."""
    mean: float
    """Mean of z over tokens."""
    error: float
    """Its standard error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLengthResult:
    """How well each of the two predictions fits."""

    influence: float
    """Fitted effect per square root of a byte, if every byte is influenced."""
    influence_chi2: float
    """Chi-square of what that leaves over."""
    selection: float
    """Fitted constant z, if fair blocks are selected."""
    selection_chi2: float
    """Chi-square of what that leaves over."""
    null_chi2: float
    """Chi-square of no effect at all, with one degree of freedom more."""
    degrees: int
    """Degrees of freedom of both fits."""
    log_likelihood_ratio: float
    """Logarithm of the likelihood of influence over that of selection: above 0 for influence."""

    @property
    def influence_p(self) -> float:
        """Probability of so bad a fit if every byte is influenced."""
        return float(special.chdtrc(self.degrees, self.influence_chi2))

    @property
    def selection_p(self) -> float:
        """Probability of so bad a fit if fair blocks are selected."""
        return float(special.chdtrc(self.degrees, self.selection_chi2))


def compare_block_lengths(arms: Sequence[ArmMean]) -> BlockLengthResult:
    """Returns how well influence and selection fit.

    If something shifts every byte a little, the z of a block of n bytes grows with ``sqrt(n)``; if
    somebody chooses the fortunate moment among fair ones, it is the same for all n (E. C. May, J.
    M. Utts and S. J. P. Spottiswoode, "Decision Augmentation Theory: Toward a Model of Anomalous
    Mental Phenomena", J. Parapsychol. 59 (1995) 195-220). Both have one parameter, which weighted
    least squares give.

    Args:
        arms: Arms of at least two lengths.

    Raises:
        ConfigError: When there are fewer lengths.
    """
    if len({arm.block_bytes for arm in arms}) < 2:
        raise ConfigError("the arms have one block length; the question needs at least two")
    influence, influence_chi2 = _fit(arms, [math.sqrt(arm.block_bytes) for arm in arms])
    selection, selection_chi2 = _fit(arms, [1.0] * len(arms))
    return BlockLengthResult(
        influence=influence,
        influence_chi2=influence_chi2,
        selection=selection,
        selection_chi2=selection_chi2,
        null_chi2=math.fsum((arm.mean / arm.error) ** 2 for arm in arms),
        degrees=len(arms) - 1,
        log_likelihood_ratio=0.5 * (selection_chi2 - influence_chi2),
    )


def _fit(arms: Sequence[ArmMean], predictor: Sequence[float]) -> tuple[float, float]:
    """Returns the factor of a predictor, and the chi-square of what it leaves over."""
    weights = [arm.error**-2 for arm in arms]
    top = math.fsum(w * x * arm.mean for w, x, arm in zip(weights, predictor, arms, strict=True))
    factor = top / math.fsum(w * x * x for w, x in zip(weights, predictor, strict=True))
    rest = math.fsum(
        w * (arm.mean - factor * x) ** 2 for w, x, arm in zip(weights, predictor, arms, strict=True)
    )
    return factor, rest
