# SPDX-License-Identifier: Apache-2.0
"""What every signal amplifier must do."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final

import numpy as np
import pytest

from qr_sampler.amplification import AmplificationResult, BlockCounts, Resolution, SignalAmplifier
from qr_sampler.arrays import ByteBlocks
from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler.testing.contracts.calls import in_time
from qr_sampler.testing.contracts.clauses import Contract, clause

__all__ = ["AmplifierContract"]

_SHAPE: Final = "test_result_has_the_promised_form"
_INSIDE: Final = "test_u_stays_inside_the_interval"
_TIMELY: Final = "test_a_result_comes_in_time"
_PURE: Final = "test_same_blocks_give_the_same_u"

_LENGTHS: Final = (1, 2, 7, 8, 64, 1000, 10_240)
_UNIFORM_BLOCKS: Final = 16_384

_LARGEST_DISTANCE: Final = math.sqrt(math.log(2.0 / 1e-9) / (2.0 * _UNIFORM_BLOCKS))
"""Exceeded by uniform numbers with probability 1e-9 at most: the inequality of Dvoretzky, Kiefer
and Wolfowitz with the constant of Massart (1990), P(D > d) <= 2 exp(-2 n d**2)."""


class AmplifierContract(Contract):
    """Inherit, override the fixture :meth:`amplifier`, and pytest checks it by the contract.

    Examples:
        >>> import pytest
        >>> from qr_sampler import ZScoreMeanAmplifier
        >>> class TestZScore(AmplifierContract):
        ...     @pytest.fixture
        ...     def amplifier(self):
        ...         return ZScoreMeanAmplifier()
    """

    block_bytes: ClassVar[int] = 64
    """Length of the blocks in bytes, one that the amplifier accepts."""

    uniform: ClassVar[bool] = True
    """Unset where u from unbiased bytes is not meant to be uniform, as with a baseline."""

    @pytest.fixture
    def amplifier(self) -> Any:
        """The amplifier under test. To be overridden."""
        raise NotImplementedError("override the fixture 'amplifier' to return it")

    @clause()
    def test_a_result_comes_in_time(self, amplifier: SignalAmplifier) -> None:
        """It runs within a step of the engine, and nothing can end it there."""
        blocks = self._blocks(32)
        in_time(lambda: amplifier.amplify(blocks), self.patience_s, "amplify() of 32 blocks")

    @clause(_TIMELY)
    @pytest.mark.parametrize("rows", [1, 3])
    def test_result_has_the_promised_form(self, amplifier: SignalAmplifier, rows: int) -> None:
        """An AmplificationResult with float64 u and finite statistic of shape (B,)."""
        result = amplifier.amplify(self._blocks(rows))
        assert isinstance(result, AmplificationResult)
        for name in ("u", "statistic"):
            values = getattr(result, name)
            assert isinstance(values, np.ndarray), f"{name} is a {type(values).__name__}"
            assert (values.dtype, values.shape) == (np.float64, (rows,)), name
        assert np.isfinite(result.statistic).all()
        assert np.shape(result.lattice_step) in ((), (rows,))
        steps = np.asarray(result.lattice_step, dtype=np.float64)
        assert (np.isnan(steps) | ((steps > 0.0) & (steps <= 1.0))).all()
        assert np.shape(result.baseline) in ((), (rows,))
        assert np.asarray(result.baseline).dtype.kind == "U"

    @clause(_TIMELY, _SHAPE)
    def test_u_stays_inside_the_interval(self, amplifier: SignalAmplifier) -> None:
        """0 < u < 1 and a finite statistic, also for blocks that a good device never makes."""
        n = self.block_bytes
        alternating = (np.arange(n) % 2 * 255).astype(np.uint8)
        blocks = np.stack([np.full(n, value, np.uint8) for value in (0, 127, 128, 255)])
        _check_numbers(
            amplifier.amplify(_read_only(np.vstack([blocks, alternating, self._blocks(64)])))
        )

    @clause(_TIMELY, _SHAPE, _INSIDE)
    @pytest.mark.parametrize("n", _LENGTHS)
    def test_lengths_that_are_not_refused_work(self, amplifier: SignalAmplifier, n: int) -> None:
        """What check_block admits cannot fail in the engine, what it refuses is a ConfigError."""
        try:
            amplifier.check_block(n)
        except ConfigError:
            return
        result = amplifier.amplify(_random_blocks(2, n))
        assert len(result.u) == 2
        _check_numbers(result)

    @clause(_TIMELY, _SHAPE)
    def test_same_blocks_give_the_same_u(self, amplifier: SignalAmplifier) -> None:
        """A function of the blocks: no state, no randomness of its own."""
        blocks = self._blocks(8)
        first = amplifier.amplify(blocks).u.tolist()
        amplifier.amplify(self._blocks(3))
        assert amplifier.amplify(blocks).u.tolist() == first

    @clause(_TIMELY, _SHAPE, _PURE)
    def test_rows_do_not_depend_on_each_other(self, amplifier: SignalAmplifier) -> None:
        """A block gives the same u alone as in a batch, so that batches do not matter."""
        blocks = self._blocks(8)
        alone = [amplifier.amplify(blocks[row : row + 1]).u.item() for row in range(8)]
        assert amplifier.amplify(blocks).u.tolist() == alone

    @clause(_TIMELY, _SHAPE, _PURE)
    def test_given_counts_change_nothing(self, amplifier: SignalAmplifier) -> None:
        """Whether the bytes were counted before is a matter of speed only."""
        blocks = self._blocks(8)
        counted = amplifier.amplify(blocks, BlockCounts(blocks))
        assert counted.u.tolist() == amplifier.amplify(blocks).u.tolist()

    @clause(_TIMELY)
    def test_blocks_are_left_alone(self, amplifier: SignalAmplifier) -> None:
        """Blocks are evidence: they are read, not changed."""
        blocks = _random_blocks(8, self.block_bytes).copy()
        before = blocks.tobytes()
        amplifier.amplify(blocks)
        assert blocks.tobytes() == before

    @clause(_TIMELY, _SHAPE)
    def test_results_stay_as_they_are(self, amplifier: SignalAmplifier) -> None:
        """A later call does not write into the arrays of an earlier one."""
        first = amplifier.amplify(self._blocks(8))
        kept = first.u.tolist(), first.statistic.tolist()
        amplifier.amplify(_random_blocks(8, self.block_bytes, seed=2))
        assert (first.u.tolist(), first.statistic.tolist()) == kept

    @clause(_TIMELY, _SHAPE, _PURE, "test_results_stay_as_they_are")
    def test_threads_get_what_belongs_to_their_blocks(self, amplifier: SignalAmplifier) -> None:
        """An instance is shared by threads."""
        batches = [_random_blocks(8, self.block_bytes, seed=seed) for seed in range(32)]
        alone = [amplifier.amplify(blocks).u.tolist() for blocks in batches]
        with ThreadPoolExecutor(8) as pool:
            together = pool.map(lambda blocks: amplifier.amplify(blocks).u.tolist(), batches)
            assert list(together) == alone

    @clause()
    def test_resolution_is_one_or_none(self, amplifier: SignalAmplifier) -> None:
        """How fine and how uniform u is, or that this is unknown."""
        resolution = amplifier.resolution(self.block_bytes)
        assert resolution is None or isinstance(resolution, Resolution)

    @clause(_TIMELY, _SHAPE, _INSIDE, "test_resolution_is_one_or_none")
    def test_u_of_unbiased_bytes_is_uniform(self, amplifier: SignalAmplifier) -> None:
        """The Kolmogorov distance of 16,384 blocks is within what their number allows.

        False-alarm probability at most 1e-9 per choice of the seed, which is fixed; the distance
        that the amplifier itself states is allowed for.
        """
        if not self.uniform:
            pytest.skip("u of unbiased bytes is not meant to be uniform")
        resolution = amplifier.resolution(self.block_bytes)
        stated = resolution.ks_distance if resolution is not None else 0.0
        u = np.sort(amplifier.amplify(self._blocks(_UNIFORM_BLOCKS)).u)
        ranks = np.arange(_UNIFORM_BLOCKS) / _UNIFORM_BLOCKS
        distance = max((u - ranks).max(), (ranks + 1.0 / _UNIFORM_BLOCKS - u).max())
        assert distance <= _LARGEST_DISTANCE + stated

    @clause()
    def test_it_is_made_from_settings(self, amplifier: SignalAmplifier) -> None:
        """A deployment gets an amplifier, or a ConfigError that says what it lacks."""
        try:
            made: object = type(amplifier).from_settings(Settings.load())
        except ConfigError:
            return
        assert isinstance(made, SignalAmplifier)
        assert isinstance(made.without_baseline(), SignalAmplifier)

    def _blocks(self, rows: int) -> ByteBlocks:
        return _random_blocks(rows, self.block_bytes)


def _check_numbers(result: AmplificationResult) -> None:
    """Fails for what the engine would end a request for."""
    u, statistic = result.u, result.statistic
    assert ((u > 0.0) & (u < 1.0)).all(), f"u from {u.min()} to {u.max()}"
    assert np.isfinite(statistic).all(), f"statistic from {statistic.min()} to {statistic.max()}"


def _random_blocks(rows: int, n: int, seed: int = 1) -> ByteBlocks:
    return _read_only(np.random.default_rng(seed).integers(0, 256, (rows, n), dtype=np.uint8))


def _read_only(blocks: ByteBlocks) -> ByteBlocks:
    blocks.flags.writeable = False
    return blocks
