# SPDX-License-Identifier: Apache-2.0
"""The control amplifier in integers, with the ends of the interval."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler import ConfigError, Uniform53Amplifier
from qr_sampler.amplification import U_MAX, U_MIN

CELLS = 2**53


def u_of(*cells: int) -> list[float]:
    """Returns u for the given 53-bit numbers."""
    blocks = [list((cell << 3).to_bytes(7, "big")) for cell in cells]
    return Uniform53Amplifier().amplify(np.array(blocks, dtype=np.uint8)).u.tolist()


@given(st.integers(0, CELLS - 1))
def test_u_is_the_midpoint_as_far_as_float64_has_room(cell: int) -> None:
    (u,) = u_of(cell)
    midpoint = Fraction(2 * cell + 1, 2 * CELLS)
    if cell < CELLS // 2:
        assert Fraction(u) == midpoint
    else:
        assert Fraction(u) == midpoint - Fraction(1, 2 * CELLS) == Fraction(cell, CELLS)


def test_the_ends_are_inside_the_open_interval() -> None:
    low, high = u_of(0, CELLS - 1)
    assert low == U_MIN / 2 > 0.0
    assert high == U_MAX < 1.0
    # Rounding to the nearest float64 would have reached 1.
    assert (CELLS - 1 + 0.5) / CELLS == 1.0


def test_neighbouring_cells_have_different_numbers() -> None:
    starts = (0, 1_000, CELLS // 4, CELLS // 2 - 3, CELLS // 2, 3 * CELLS // 4, CELLS - 6)
    for start in starts:
        us = u_of(*range(start, start + 6))
        assert us == sorted(set(us))
        assert max(np.diff(us)) <= 2 * Uniform53Amplifier().resolution(7).lattice_step


def test_seven_bytes_count_and_the_three_last_bits_do_not() -> None:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (100, 30), dtype=np.uint8)
    others = blocks.copy()
    others[:, 7:] = rng.integers(0, 256, (100, 23), dtype=np.uint8)
    others[:, 6] ^= 0b111
    amplifier = Uniform53Amplifier()
    result = amplifier.amplify(blocks)
    assert result.u.tolist() == amplifier.amplify(others).u.tolist()
    assert result.u.tolist() == result.statistic.tolist()
    for position in range(7):
        changed = blocks.copy()
        changed[:, position] ^= 0b1000
        assert (amplifier.amplify(changed).u != result.u).all()
    expected = [int.from_bytes(line[:7].tobytes(), "big") / 2**56 for line in blocks]
    np.testing.assert_allclose(result.u, expected, rtol=0.0, atol=2.0**-53)


@pytest.mark.parametrize("size", [1, 6])
def test_short_blocks_are_refused(size: int) -> None:
    amplifier = Uniform53Amplifier()
    for attempt in (
        lambda: amplifier.check_block(size),
        lambda: amplifier.resolution(size),
        lambda: amplifier.amplify(np.zeros((1, size), dtype=np.uint8)),
    ):
        with pytest.raises(ConfigError, match=f"reads 7 bytes and the block has {size}"):
            attempt()
    assert amplifier.resolution(7).lattice_step == 2.0**-53


def test_the_cells_of_system_bytes_are_equally_full() -> None:
    """64 cells, chi-squared by its exponential tail: false alarm <= 1e-9 (Laurent and Massart)."""
    count, cells = 64_000, 64
    blocks = np.frombuffer(os.urandom(7 * count), dtype=np.uint8).reshape(count, 7)
    filled = np.bincount(
        (Uniform53Amplifier().amplify(blocks).u * cells).astype(int), minlength=cells
    )
    statistic = ((filled - count / cells) ** 2).sum() / (count / cells)
    exponent = np.log(1e9)
    assert statistic < cells - 1 + 2 * np.sqrt((cells - 1) * exponent) + 2 * exponent
