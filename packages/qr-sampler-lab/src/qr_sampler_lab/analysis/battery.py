# SPDX-License-Identifier: Apache-2.0
"""All tests of one column of numbers of one arm, and of two arms against each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.location import (
    UNIFORM_DEVIATION,
    Moments,
    difference_test,
    mean_test,
    uniform_mean_test,
)
from qr_sampler_lab.analysis.order import BlockMeans, Cusum, LjungBox, Runs
from qr_sampler_lab.analysis.results import Alternative, TestResult, checked_numbers
from qr_sampler_lab.analysis.shape import (
    EmpiricalLaw,
    LatticeLaw,
    Visibility,
    anderson_darling,
    kolmogorov_smirnov,
    tail_test,
    two_sample_ks,
    variance_ratio_test,
    variance_test,
)
from qr_sampler_lab.analysis.shape.spread import UNIFORM_EXCESS

__all__ = ["Battery", "Column", "compare"]

Column: TypeAlias = Literal["u", "statistic"]

_SMALLEST: Final = 2.0**-53
_TIE_SEED: Final = 0
_LATTICE_NOTE: Final = (
    "Against the exact discrete law of the block's count, its ties broken with seed 0."
)


class Battery:
    """Location, shape and order of u, or of an amplifier's statistic, chunk by chunk in time order.

    u ought to be uniform in (0, 1), a statistic to have mean 0 and variance 1. Shape is tested on
    u, on the normal distribution function of a statistic, or, with a *law*, exactly on the integer
    counts of the blocks, which are then to be given.

    Memory: some 20 MiB, and one number per *block_tokens* tokens.

    Args:
        about: ``"u"`` or ``"statistic"``.
        law: Exact law of the block's count under ideal bytes, for amplifiers whose statistic is
            that count's z-score (``zscore_mean``, ``bit_zscore``) and blocks of one length.
        visibility: How far the amplifier's u is from uniform; not needed with a *law*.
        baseline_blocks: Blocks of the baseline that the numbers refer to, ``None`` without one.
        block_tokens: Tokens per block of the block means.

    Raises:
        ConfigError: When a parameter is out of range.
    """

    def __init__(
        self,
        about: Column = "u",
        *,
        law: LatticeLaw | None = None,
        visibility: Visibility | None = None,
        baseline_blocks: int | None = None,
        block_tokens: int = 1_000,
    ) -> None:
        if about not in ("u", "statistic"):
            raise ConfigError(f"about={about!r}: use 'u' or 'statistic'")
        if law is not None and baseline_blocks:
            raise ConfigError("a baseline replaces the law of ideal bytes: give one of them")
        self.about: Column = about
        self.law, self.visibility, self.baseline_blocks = law, visibility, baseline_blocks
        self.moments = Moments()
        # Beside an exact law the variance of u is that of its transform.
        self._spread = self.moments if law is None else Moments()
        self.ecdf = EmpiricalLaw()
        self.cusum, self.ljung_box = Cusum(), LjungBox()
        self.runs = Runs(0.5 if about == "u" else 0.0)
        self.block_means = BlockMeans(block_tokens)
        self._ties = np.random.default_rng(_TIE_SEED)

    def add(self, values: ArrayLike, block_values: ArrayLike | None = None) -> None:
        """Adds a chunk in order of time.

        Args:
            values: Shape ``(B,)``.
            block_values: Integer counts of the blocks, shape ``(B,)``; needed with a *law* only.

        Raises:
            ConfigError: When numbers are out of range or counts are missing.
        """
        numbers = checked_numbers(values)
        uniform = self._uniform(numbers, block_values)
        self.ecdf.add(uniform)
        if self._spread is not self.moments:
            self._spread.add(uniform if self.about == "u" else numbers)
        for part in (self.moments, self.cusum, self.ljung_box, self.runs, self.block_means):
            part.add(numbers)

    def results(self, *, alternative: Alternative = "two-sided") -> tuple[TestResult, ...]:
        """Returns all tests, those of location first.

        A test that cannot be said, for want of tokens or of a law to test, has NaN for its p-value
        and a note.

        Args:
            alternative: The side that counts for the mean.
        """
        return (
            *self.location(alternative=alternative),
            *self.shape(),
            *self.order(),
        )

    def location(self, *, alternative: Alternative = "two-sided") -> tuple[TestResult, ...]:
        """Returns the test of the mean."""
        test = uniform_mean_test if self.about == "u" else mean_test
        said = self._said(
            "mean",
            lambda: test(
                self.moments, baseline_blocks=self.baseline_blocks, alternative=alternative
            ),
        )
        return (said,)

    def shape(self) -> tuple[TestResult, ...]:
        """Returns the tests of Kolmogorov-Smirnov, Anderson-Darling, of variance and of tails."""
        tests: tuple[tuple[str, Callable[[], TestResult]], ...] = (
            ("kolmogorov_smirnov", lambda: kolmogorov_smirnov(self.ecdf, about=self.about)),
            ("anderson_darling", lambda: anderson_darling(self.ecdf, about=self.about)),
            ("variance", self._variance),
            ("tails", lambda: tail_test(self.ecdf, about=self.about)),
        )
        return tuple(self._judged(self._said(name, test)) for name, test in tests)

    def order(self) -> tuple[TestResult, ...]:
        """Returns CUSUM, Ljung-Box, runs and block means."""
        tests: tuple[tuple[str, Callable[..., TestResult]], ...] = (
            ("cusum", self.cusum.result),
            ("ljung_box", self.ljung_box.result),
            ("runs", self.runs.result),
            ("block_means", self.block_means.result),
        )
        return tuple(self._said(name, partial(test, about=self.about)) for name, test in tests)

    @property
    def excess_kurtosis(self) -> float:
        """Excess kurtosis of the numbers under the null hypothesis."""
        if self.about == "u":
            return UNIFORM_EXCESS
        return self.law.excess_kurtosis if self.law is not None else 0.0

    def _variance(self) -> TestResult:
        deviation = UNIFORM_DEVIATION if self.about == "u" else 1.0
        return variance_test(
            self._spread,
            deviation=deviation,
            excess_kurtosis=self.excess_kurtosis,
            about=self.about,
        )

    def _uniform(
        self, numbers: NDArray[np.float64], block_values: ArrayLike | None
    ) -> NDArray[np.float64]:
        if self.law is not None:
            if block_values is None or np.shape(block_values) != numbers.shape:
                raise ConfigError("the exact law needs the count of every block beside its number")
            return self.law.transform(block_values, self._ties)
        if self.about == "u":
            # Numbers of speculative decoding are in [0, 1): zero bytes of a device that is stuck
            # give 0.
            return np.where(numbers == 0.0, _SMALLEST, numbers)
        uniform: NDArray[np.float64] = np.clip(special.ndtr(numbers), _SMALLEST, 1.0 - _SMALLEST)
        return uniform

    def _judged(self, result: TestResult) -> TestResult:
        """Returns *result* with what lattice and baseline do to it."""
        if self.law is not None:
            return result.with_p_value(result.p_value, _LATTICE_NOTE)
        if self.visibility is None:
            return result
        if self.visibility.distorts(result.n):
            return result.with_p_value(
                math.nan,
                f"Cannot be said: the law of u is {self.visibility.distance:.1e} from uniform, "
                f"which distorts the test from {self.visibility.harmless_up_to:,.0f} tokens on and "
                f"is in plain sight from {self.visibility.visible_from:,.0f}. Test the exact law "
                "of the counts, or compare arms.",
            )
        return result

    def _said(self, name: str, test: Callable[[], TestResult]) -> TestResult:
        try:
            return test()
        except ConfigError as error:
            return TestResult(
                name=name,
                about=self.about,
                statistic=math.nan,
                p_value=math.nan,
                n=self.moments.n,
                notes=(f"Cannot be said: {error}.",),
            )


def compare(
    arm: Battery, control: Battery, *, alternative: Alternative = "two-sided"
) -> tuple[TestResult, ...]:
    """Returns the default comparison, between arms: means, laws and variances.

    Baseline, lattice and bias are common to both arms and cancel.

    Args:
        arm: Of at least two tokens.
        control: Of at least two tokens, of the same column.
        alternative: ``"greater"`` when the arm's mean ought to exceed the control's.

    Raises:
        ConfigError: When the columns differ or an arm has too few tokens.
    """
    if arm.about != control.about:
        raise ConfigError(f"{arm.about!r} against {control.about!r}: compare the same column")
    return (
        difference_test(arm.moments, control.moments, alternative=alternative, about=arm.about),
        two_sample_ks(arm.ecdf, control.ecdf, about=arm.about),
        variance_ratio_test(
            arm.moments, control.moments, excess_kurtosis=arm.excess_kurtosis, about=arm.about
        ),
    )
