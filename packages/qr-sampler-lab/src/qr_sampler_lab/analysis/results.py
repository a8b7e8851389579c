# SPDX-License-Identifier: Apache-2.0
"""What a test hands back: statistic, p-value, effect with interval, n, notes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from qr_sampler.errors import ConfigError, shown

__all__ = [
    "Alternative",
    "Interval",
    "TestResult",
    "checked_alternative",
    "checked_numbers",
    "normal_interval",
    "normal_p_value",
]

Alternative: TypeAlias = Literal["two-sided", "greater", "less"]
"""The side on which a deviation counts as evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An interval of confidence, always two-sided."""

    low: float
    high: float
    level: float = 0.95
    """Probability with which the method covers the true value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """What one test says about one column of numbers."""

    # Keeps pytest from collecting the class where a test module imports it.
    __test__ = False

    name: str
    """Of the test, stable, for tables: ``"mean"``, ``"kolmogorov_smirnov"`` ..."""
    about: str = ""
    """What was tested: ``"u"``, ``"statistic"``, ``"bits"`` ..."""
    statistic: float
    """The test's own figure: z, D, A squared, Q ..."""
    p_value: float
    """NaN where the test cannot be said; the notes say why."""
    n: int
    """Number of observations: tokens unless the notes say otherwise."""
    effect: float = math.nan
    """The size of the deviation in the units that :attr:`effect_name` names."""
    effect_name: str = ""
    """What the effect is, in a few words."""
    interval: Interval | None = None
    """Interval of the effect."""
    alternative: Alternative = "two-sided"
    """The side on which a deviation counts."""
    exploratory: bool = False
    """Whether the result can suggest hypotheses only, because nothing limits how it was chosen."""
    notes: tuple[str, ...] = ()
    """Sentences that a report prints beside the figures."""

    def with_p_value(self, p_value: float, *notes: str) -> TestResult:
        """Returns the result with another p-value, and what there is to say about it."""
        return replace(self, p_value=p_value, notes=self.notes + notes)

    def renamed(self, name: str, *notes: str) -> TestResult:
        """Returns the result under another name, and what there is to say about it."""
        return replace(self, name=name, notes=self.notes + notes)


def checked_alternative(alternative: Alternative) -> Alternative:
    """Returns *alternative*.

    Raises:
        ConfigError: When there is no such alternative.
    """
    if alternative not in get_args(Alternative):
        raise ConfigError(
            f"alternative={shown(alternative)}: use one of {', '.join(get_args(Alternative))}"
        )
    return alternative


def normal_p_value(z: float, alternative: Alternative = "two-sided") -> float:
    """Returns the p-value of a standard normal *z*, accurate in the tails.

    Raises:
        ConfigError: When there is no such alternative.

    Examples:
        >>> round(normal_p_value(1.959964), 6)
        0.05
    """
    if checked_alternative(alternative) == "two-sided":
        return float(2.0 * special.ndtr(-abs(z)))
    return float(special.ndtr(-z if alternative == "greater" else z))


def normal_interval(estimate: float, error: float, level: float = 0.95) -> Interval:
    """Returns the interval of a normal *estimate* with the standard error *error*."""
    half = float(special.ndtri(0.5 + level / 2.0)) * error
    return Interval(low=estimate - half, high=estimate + half, level=level)


def checked_numbers(values: ArrayLike, *, name: str = "values") -> NDArray[np.float64]:
    """Returns *values* as float64 numbers in one dimension.

    Raises:
        ConfigError: When they have another shape or are not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise ConfigError(f"{name} have the shape {numbers.shape}: give one number per token")
    # A sum is finite only if all are, short of an overflow, and needs no temporary.
    if not math.isfinite(float(numbers.sum())) and not np.isfinite(numbers).all():
        worst = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ConfigError(
            f"{name}[{worst}]={numbers[worst]}: statistics need finite numbers; leave out tokens "
            "that have none, and count them"
        )
    return numbers
