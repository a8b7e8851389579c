# SPDX-License-Identifier: Apache-2.0
"""An amplifier of another project, whose results are looked at before they select a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qr_sampler.amplification.base import AmplificationResult, Labels, SignalAmplifier
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.arrays import ByteBlocks, FloatArray, IndexArray, read_only
from qr_sampler.foreign import component_failure, component_settings

__all__ = ["GuardedAmplifier"]

KIND: Final = "signal amplifier"

MAX_LABEL_CHARACTERS: Final = 64
"""Longest name of a baseline: a digest of 256 bits in hexadecimal."""


class GuardedAmplifier(SignalAmplifier):
    """Hands blocks to *amplifier* and lets nothing pass but what its contract promises.

    Blocks and counts become records, so that it cannot change them.

    It is called within a step, so that one which never returns holds up the engine.

    Args:
        amplifier: The amplifier.
        name: What it is configured as.
    """

    def __init__(self, amplifier: SignalAmplifier, name: str) -> None:
        self._amplifier = amplifier
        self._name = name

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """The settings of the amplifier, in plain values."""
        return component_settings(KIND, self._name, self._amplifier)

    def amplify(self, blocks: ByteBlocks, counts: BlockCounts | None = None) -> AmplificationResult:
        """Returns one u per block, inside (0, 1).

        Raises:
            ComponentError: When the amplifier has returned something else, or raised anything.
        """
        try:
            given = None if counts is None else _Counts(counts)
            answer = self._amplifier.amplify(read_only(blocks), given)
            return _checked(answer, len(blocks))
        except BaseException as error:
            raise component_failure(KIND, self._name, error) from None

    def check_block(self, block_bytes: int) -> None:
        """Refuses blocks as the amplifier does. Called at admission, where errors are refusals."""
        self._amplifier.check_block(block_bytes)

    def resolution(self, block_bytes: int) -> Resolution | None:
        """Returns what the amplifier does. Called at admission, where errors are refusals.

        Raises:
            TypeError: When that is no resolution.
        """
        resolution: object = self._amplifier.resolution(block_bytes)
        if resolution is not None and not isinstance(resolution, Resolution):
            raise TypeError(f"its resolution is of type {type(resolution).__name__}")
        return resolution

    def without_baseline(self) -> SignalAmplifier:
        """Returns the amplifier for bytes that its baseline does not describe.

        Raises:
            ComponentError: When there is none.
        """
        try:
            other: object = self._amplifier.without_baseline()
            if not isinstance(other, SignalAmplifier):
                raise TypeError(f"without a baseline it is of type {type(other).__name__}")
        except BaseException as error:
            raise component_failure(KIND, self._name, error) from None
        return self if other is self._amplifier else GuardedAmplifier(other, self._name)


class _Counts(BlockCounts):
    """Counts that another one has made, to be read only."""

    __slots__ = ("_counts",)

    def __init__(self, counts: BlockCounts) -> None:
        self._counts = counts

    @property
    def sums(self) -> IndexArray:
        return read_only(self._counts.sums)

    @property
    def ones(self) -> IndexArray:
        return read_only(self._counts.ones)


def _checked(result: object, count: int) -> AmplificationResult:
    """Returns a copy of *result* in plain arrays.

    Raises:
        ValueError: When it is out of range or of the wrong shape.
        TypeError: When it is no result at all.
    """
    if not isinstance(result, AmplificationResult):
        raise TypeError(f"it returned {type(result).__name__} instead of an AmplificationResult")
    u = _numbers("u", result.u, (count,))
    if not ((u > 0.0) & (u < 1.0)).all():
        raise ValueError("u is not inside (0, 1)")
    statistic = _numbers("statistic", result.statistic, (count,))
    if not np.isfinite(statistic).all():
        raise ValueError("statistic is not finite")
    step = _numbers("lattice_step", result.lattice_step, (count,), ())
    if not (np.isnan(step) | ((step > 0.0) & (step <= 1.0))).all():
        raise ValueError("lattice_step is neither in (0, 1] nor NaN")
    return AmplificationResult(u, statistic, step, _labels(result.baseline, count))


def _numbers(field: str, values: Any, *shapes: tuple[int, ...]) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    _check_shape(field, array, shapes)
    return array


def _labels(values: Any, count: int) -> Labels:
    array = np.array(values)
    _check_shape("baseline", array, ((count,), ()))
    if array.dtype.kind != "U" or np.char.str_len(array).max(initial=0) > MAX_LABEL_CHARACTERS:
        raise ValueError(f"baseline is not text of at most {MAX_LABEL_CHARACTERS} characters")
    return array


def _check_shape(field: str, array: NDArray[Any], shapes: tuple[tuple[int, ...], ...]) -> None:
    if array.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"{field} has shape {array.shape}, expected {expected}")
