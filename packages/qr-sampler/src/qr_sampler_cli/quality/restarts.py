# SPDX-License-Identifier: Apache-2.0
"""Whether a source begins anew after a restart, and not as it did before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from qr_sampler_cli.quality.byte_tests import ByteTest
from qr_sampler_cli.quality.tails import binomial_tail, chi_square_tail

__all__ = ["restart_tests"]

_FIRST: Final = 8
_ONE_IN_BEGINNINGS: Final = 2.0**-64


def restart_tests(firsts: Sequence[bytes]) -> list[ByteTest]:
    """Returns the tests of what a source delivered first after each restart.

    A seed that is the same after every restart makes the beginnings equal; a warm-up makes them
    vary more than chance does.

    Args:
        firsts: The first bytes after each restart, all of one length; fewer than two give no tests.
    """
    if len(firsts) < 2:
        return []
    return [_equal_beginnings(firsts), _variation(firsts)]


def _equal_beginnings(firsts: Sequence[bytes]) -> ByteTest:
    heads = [first[:_FIRST] for first in firsts]
    repeated = len(heads) - len(set(heads))
    pairs = len(heads) * (len(heads) - 1) // 2
    return ByteTest(
        name="equal restarts",
        statistic=float(repeated),
        p_value=binomial_tail(repeated, pairs, _ONE_IN_BEGINNINGS),
        words=f"{repeated:,} of {len(heads):,} restarts begin like an earlier one",
    )


def _variation(firsts: Sequence[bytes]) -> ByteTest:
    """Tests whether the shares of ones differ between restarts, around their common share."""
    data = np.frombuffer(b"".join(firsts), dtype=np.uint8).reshape(len(firsts), -1)
    bits = 8 * data.shape[1]
    shares = np.unpackbits(data, axis=1).mean(axis=1)
    common = float(shares.mean())
    variance = common * (1.0 - common) / bits
    statistic = float(((shares - common) ** 2).sum() / variance) if variance else 0.0
    return ByteTest(
        name="restart variation",
        statistic=statistic,
        p_value=chi_square_tail(statistic, len(firsts) - 1),
        words=f"chi-square {statistic:.2f} of {len(firsts) - 1} degrees, ones between "
        f"{shares.min():.4f} and {shares.max():.4f}",
    )
