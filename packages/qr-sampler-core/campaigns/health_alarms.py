# SPDX-License-Identifier: Apache-2.0
"""Counts alarms of the health tests where there must be none, and looks for censored effects.

Good bytes (the system's generator and PCG64), what an experiment looks for (bits that are ones with
a probability of 0.501 or 0.51, bits that repeat the one before with a probability of 0.51, bytes
whose mean is 0.1 % too large) and draws of seven bytes may raise no alarm: by the union bound over
tests and draws, ideal bytes do so with a probability of less than 1e-6 in all.

A source with biased bits is then drawn from through a guard that watches it and one that does not.
Every u of the watched one has to be that of the same bytes unwatched, none may be missing or
suspect, and those of another unwatched run have to have the same distribution (Kolmogorov-Smirnov,
and the mean; false-alarm rates of 5e-10 each). A guard that refuses the largest u, one in a
hundred, shows that the comparison of so many blocks sees censoring.

    python campaigns/health_alarms.py --bytes 1000000000 --short-draws 10000000 --blocks 1000000
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from qr_sampler import EntropySource, GuardedSource
from qr_sampler.amplification import ZScoreMeanAmplifier
from qr_sampler.health import HealthMonitor, HealthOptions, HealthState

BLOCK = 10_240
SHORT = 7
BIASED_BLOCK = 512
"""Bytes of a block of the biased source: the shortest that all tests look at."""
BIAS = 0.501
FALSE_ALARM = 5e-10
KEPT_BY_CENSOR = 0.99

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Generator = np.random.Generator


def ones(rng: Generator, n: int, probability: float) -> Bytes:
    """Returns *n* bytes whose bits are ones with a probability that 2**16 times is whole."""
    words = rng.integers(0, 2**16, 8 * n, dtype=np.uint16)
    return np.packbits(words < round(probability * 2**16))


def sticky(rng: Generator, n: int) -> Bytes:
    """Returns bytes whose bits repeat the one before with a probability of 0.51."""
    changes = rng.integers(0, 2**16, 8 * n, dtype=np.uint16) < round(0.49 * 2**16)
    return np.packbits(np.bitwise_xor.accumulate(changes))


def larger(rng: Generator, n: int) -> Bytes:
    """Returns bytes whose mean is 0.1 % too large."""
    data = rng.integers(0, 256, n, dtype=np.uint8)
    raised = rng.integers(0, 2**16, n, dtype=np.uint16) < round(0.1275 * 256 / 255 * 2**16)
    return data + (raised & (data < 255)).astype(np.uint8)


SOURCES: dict[str, Callable[[Generator, int], Bytes]] = {
    "system": lambda _, n: np.frombuffer(os.urandom(n), dtype=np.uint8),
    "PCG64": lambda rng, n: rng.integers(0, 256, n, dtype=np.uint8),
    "p = 0.501": lambda rng, n: ones(rng, n, 0.501),
    "p = 0.51": lambda rng, n: ones(rng, n, 0.51),
    "sticky 0.02": sticky,
    "mean + 0.1 %": larger,
}


def alarms(deliver: Callable[[Generator, int], Bytes], draws: int, size: int) -> int:
    """Returns how many of some draws the tests object to."""
    monitor, rng, found = HealthMonitor(), np.random.default_rng(7), 0
    for _ in range(0, draws, 64):
        piece = deliver(rng, 64 * size).tobytes()
        for start in range(0, len(piece), size):
            found += monitor.observe(piece[start : start + size]) is not None
    return found


class Biased(EntropySource):
    """Bits that are ones too often."""

    name = "biased"
    blocks = False
    min_entropy_per_byte = 8.0

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes."""
        return ones(self._rng, n, BIAS).tobytes()


def uniforms(seed: int, blocks: int, *, watched: bool) -> Floats:
    """Returns the u of the blocks that may decide tokens."""
    guard = GuardedSource(Biased(seed), 60_000.0, health=HealthOptions(enabled=watched))
    # The bytes of the start-up test, which a watched source does not hand out.
    _ = guard.start_up() if watched else guard.draw(1024)
    amplifier = ZScoreMeanAmplifier()
    found = []
    for _ in range(0, blocks, 64):
        draws = [guard.draw(BIASED_BLOCK) for _ in range(64)]
        kept = [draw.data for draw in draws if draw.health is not HealthState.SUSPECT]
        rows = np.frombuffer(b"".join(kept), dtype=np.uint8).reshape(-1, BIASED_BLOCK)
        found.append(amplifier.amplify(rows).u)
    return np.concatenate(found)


def differ(some: Floats, others: Floats) -> bool:
    """Returns whether the distribution or the mean of two samples of u differs."""
    ks = stats.ks_2samp(some, others, method="asymp").pvalue
    mean = stats.ttest_ind(some, others, equal_var=False).pvalue
    print(f"  means {some.mean():.6f} and {others.mean():.6f}: p = {mean:.3g}; KS: p = {ks:.3g}")
    return bool(min(ks, mean) < FALSE_ALARM)


def main() -> int:
    """Runs all parts and returns how many have failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bytes", type=int, default=10**9)
    parser.add_argument("--short-draws", type=int, default=10**7)
    parser.add_argument("--blocks", type=int, default=10**6)
    options = parser.parse_args()
    failed = 0
    parts = [(name, options.bytes // BLOCK, BLOCK) for name in SOURCES]
    for name, draws, size in (*parts, ("PCG64", options.short_draws, SHORT)):
        began = time.monotonic()
        found = alarms(SOURCES[name], draws, size)
        took = time.monotonic() - began
        print(f"{name}: {draws} draws of {size} bytes, {found} alarms, {took:.0f} s", flush=True)
        failed += found > 0
    watched = uniforms(1, options.blocks, watched=True)
    same = uniforms(1, options.blocks, watched=False)
    print(f"watched and not, of the same bytes: {len(watched)} and {len(same)} u")
    failed += not np.array_equal(watched, same)
    other = uniforms(2, options.blocks, watched=False)
    failed += differ(watched, other)
    print("with a censor that refuses the largest u:")
    failed += not differ(watched[watched < np.quantile(watched, KEPT_BY_CENSOR)], other)
    print("failed" if failed else "passed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
