# SPDX-License-Identifier: Apache-2.0
"""Counts tokens in a hundred million draws and compares them with the exact probabilities.

The law is Zipf's, with a tail of tokens that are expected less than ten times. A token is a
non-decreasing function of u, so it is known everywhere once it is known on both sides of each step:
the fast selector is asked there, and the bulk of the draws is counted between the steps. Further
draws go through the selector one by one.

The test is Pearson's chi-square on single tokens, the tail merged to expected counts of 10 or
more, and on octaves of ranks, with false-alarm rates of 5e-10 each. Two flawed ways to select meet
the same uniforms to show what the test sees: a cumulative sum in float32 whose overflow goes to the
last rank, and a z-score with the standard deviation 255 / sqrt(12) of a continuous uniform for
bytes, whose own is sqrt((256**2 - 1) / 12).

    python campaigns/frequencies.py --draws 100000000 --picks 1000000 --processes 2
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from qr_sampler import FastSelector, Rows, SamplingParameters
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.selection import distances, fixed_point_masses

VOCAB_SIZE = 5_000
ZIPF_EXPONENT = 2.0
SHARD = 10**6
"""Draws per piece of work; each piece has a seed of its own."""

FALSE_ALARM = 1e-9
LEAST_EXPECTED = 10.0
CONTINUOUS_DEVIATION = 255.0 / math.sqrt(12.0)
BYTE_DEVIATION = math.sqrt((256.0**2 - 1.0) / 12.0)

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def law() -> NDArray[np.float32]:
    """Returns logits in rank order; their order in the vocabulary is of no concern here."""
    ranks = np.arange(1, VOCAB_SIZE + 1, dtype=np.float64)
    logits: NDArray[np.float32] = (20.0 - ZIPF_EXPONENT * np.log(ranks)).astype(np.float32)
    return logits


def exact_probabilities(logits: NDArray[np.float32]) -> list[Fraction]:
    """Returns softmax(logits) in rank order, to 40 digits, without a library's exp in float64."""
    with localcontext() as context:
        context.prec = 50
        largest = Decimal(float(logits.max()))
        weights = [(Decimal(logit) - largest).exp() for logit in logits.tolist()]
        total = sum(weights)
        return [Fraction(weight / total) for weight in weights]


class Decisions:
    """The tokens that a fast selector picks on the law."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self._selector, temperature = FastSelector(), np.ones(1)
        rows = Rows([SamplingParameters.model_validate({})])
        measurement = self._selector.measure(logits[np.newaxis], rows, temperature)
        self._plan = self._selector.prepare(measurement, temperature)

    def rank(self, u: float) -> int:
        """Returns the rank that *u* selects."""
        return int(self._selector.pick(self._plan, np.array([u])).rank[0])

    def step(self, rank: int, guess: float) -> float:
        """Returns the largest float64 u that selects *rank* or less, by bisection.

        Args:
            rank: Not the last one.
            guess: Where the step is expected; only the number of questions depends on it.
        """
        width, lower = 2.0**-53, guess
        while self.rank(max(lower, U_MIN)) > rank:
            lower, width = lower - width, 2.0 * width
        width, upper = 2.0**-53, guess
        while self.rank(min(upper, U_MAX)) <= rank:
            upper, width = upper + width, 2.0 * width
        while np.nextafter(lower, upper) < upper:
            middle = 0.5 * (lower + upper)
            lower, upper = (middle, upper) if self.rank(middle) <= rank else (lower, middle)
        return lower


def steps_of_selector(logits: NDArray[np.float32]) -> Floats:
    """Returns the V - 1 steps of the rank as a function of u."""
    decisions, steps = Decisions(logits), []
    running = np.cumsum(fixed_point_masses(distances(logits), 1.0))
    for rank, guess in enumerate((running[:-1] / running[-1]).tolist()):
        steps.append(decisions.step(rank, guess))
        if (rank + 1) % 1_000 == 0:
            print(f"steps: {rank + 1:,} of {running.size - 1:,}", flush=True)
    return np.array(steps)


def steps_of_float32(logits: NDArray[np.float32]) -> Floats:
    """Returns the steps of a search in a float32 cumulative sum, clamped to the last rank."""
    weights = np.exp(logits - logits.max())
    return np.cumsum(weights / weights.sum(), dtype=np.float32).astype(np.float64)[:-1]


def steps_of_wrong_deviation(steps: Floats) -> Floats:
    """Returns the steps in terms of a true uniform when z-scores are too large by 0.4 percent."""
    z = special.ndtri(steps) * CONTINUOUS_DEVIATION / BYTE_DEVIATION
    return np.asarray(special.ndtr(z))


def count_shard(seed: int, shard: int, steps: list[Floats]) -> list[Counts]:
    """Returns how often each rank occurs among SHARD uniforms, for each list of *steps*."""
    uniforms = np.sort(uniforms_of(seed, shard, SHARD))
    return [
        np.diff(np.searchsorted(uniforms, s, side="right"), prepend=0, append=SHARD) for s in steps
    ]


def uniforms_of(seed: int, shard: int, count: int) -> Floats:
    """Returns the uniforms of one piece of work, in the open interval (0, 1)."""
    rng = np.random.Generator(np.random.PCG64([seed, shard]))
    return np.clip(rng.random(count), U_MIN, U_MAX)


def pick_shard(seed: int, shard: int, count: int, steps: Floats) -> tuple[Counts, int]:
    """Returns the counts of *count* real picks, and how many differ from what *steps* say."""
    decisions = Decisions(law())
    uniforms = uniforms_of(seed, shard, count)
    ranks = np.array([decisions.rank(u) for u in uniforms.tolist()])
    differing = int((ranks != np.searchsorted(steps, uniforms, side="left")).sum())
    return np.bincount(ranks, minlength=VOCAB_SIZE).astype(np.int64), differing


def single_cells(probabilities: Floats, draws: int) -> list[int]:
    """Returns where cells begin: one per rank, merged until LEAST_EXPECTED counts are expected."""
    starts, expected = [0], 0.0
    for rank, probability in enumerate(probabilities):
        if expected >= LEAST_EXPECTED:
            starts.append(rank)
            expected = 0.0
        expected += draws * probability
    return starts if expected >= LEAST_EXPECTED or len(starts) == 1 else starts[:-1]


def octave_cells(probabilities: Floats, draws: int) -> list[int]:
    """Returns where cells begin: at ranks 0, 1, 3, 7, 15, ..., as long as enough is expected."""
    starts = [2**octave - 1 for octave in range(len(probabilities).bit_length())]
    starts = [start for start in starts if start < len(probabilities)]
    while len(starts) > 1 and draws * probabilities[starts[-1] :].sum() < LEAST_EXPECTED:
        starts.pop()
    return starts


def p_value(counts: Counts, probabilities: Floats, starts: list[int]) -> float:
    """Returns the p-value of Pearson's test on the cells that begin at *starts*."""
    observed = np.add.reduceat(counts, starts)
    expected = np.add.reduceat(probabilities, starts) * counts.sum()
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return float(stats.chi2.sf(statistic, len(starts) - 1))


def smallest_p_value(counts: Counts, probabilities: Floats) -> float:
    """Returns the smaller of the two p-values, doubled."""
    draws = int(counts.sum())
    cells = single_cells(probabilities, draws), octave_cells(probabilities, draws)
    return min(1.0, 2.0 * min(p_value(counts, probabilities, starts) for starts in cells))


def is_checkpoint(shards: int) -> bool:
    """Whether *shards* is 1, 2 or 5 times a power of ten."""
    return str(shards).rstrip("0") in ("1", "2", "5")


def main() -> int:
    """Runs the campaign and returns the exit status: 1 on any failure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--draws", type=int, default=10**8)
    parser.add_argument("--picks", type=int, default=10**6)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20_260_102)
    options = parser.parse_args()
    started, logits = time.monotonic(), law()
    probabilities = np.array([float(share) for share in exact_probabilities(logits)])
    steps = steps_of_selector(logits)
    print(f"steps: all {len(steps):,} after {time.monotonic() - started:.0f} s", flush=True)
    names = ("fast selector", "float32 cumulative sum", "wrong standard deviation")
    every = [steps, steps_of_float32(logits), steps_of_wrong_deviation(steps)]
    with ProcessPoolExecutor(options.processes) as pool:
        picked, differing = _picks(pool, options, steps)
        totals, rejected = _draws(pool, options, every, probabilities, names)
    p_bulk = smallest_p_value(totals[0], probabilities)
    p_picks = smallest_p_value(picked, probabilities)
    powerful = all(name in rejected for name in names[1:])
    passed = min(p_bulk, p_picks) >= FALSE_ALARM and not differing and powerful
    seen = ", ".join(
        f"{name} rejected from {rejected[name]:,} draws" if name in rejected else f"{name} NOT seen"
        for name in names[1:]
    )
    print(
        f"frequencies: {'passed' if passed else 'FAILED'}, p={p_bulk:.3g} of {totals[0].sum():,} "
        f"draws in {len(single_cells(probabilities, int(totals[0].sum()))):,} cells, "
        f"p={p_picks:.3g} of {picked.sum():,} picks, {differing} picks differ; {seen}; "
        f"seed {options.seed}, {time.monotonic() - started:.0f} s"
    )
    return 0 if passed else 1


def _picks(
    pool: ProcessPoolExecutor, options: argparse.Namespace, steps: Floats
) -> tuple[Counts, int]:
    pieces = 10
    ends = [options.picks * piece // pieces for piece in range(pieces + 1)]
    futures = [
        # Seeds beyond those of the bulk.
        pool.submit(pick_shard, options.seed, 10**9 + piece, stop - start, steps)
        for piece, (start, stop) in enumerate(pairwise(ends))
    ]
    counts, differing = np.zeros(VOCAB_SIZE, dtype=np.int64), 0
    for future in futures:
        found, wrong = future.result()
        counts, differing = counts + found, differing + wrong
        print(f"picks: {counts.sum():,}, {differing} differ", flush=True)
    return counts, differing


def _draws(
    pool: ProcessPoolExecutor,
    options: argparse.Namespace,
    steps: list[Floats],
    probabilities: Floats,
    names: tuple[str, ...],
) -> tuple[list[Counts], dict[str, int]]:
    """Returns the counts by law, and from how many draws on each law was rejected for good."""
    shards = max(options.draws // SHARD, 1)
    totals = [np.zeros(VOCAB_SIZE, dtype=np.int64) for _ in steps]
    rejected: dict[str, int] = {}
    futures = [pool.submit(count_shard, options.seed, shard, steps) for shard in range(shards)]
    for done, future in enumerate(futures, start=1):
        totals = [total + found for total, found in zip(totals, future.result(), strict=True)]
        if not is_checkpoint(done) and done != shards:
            continue
        p_values = [smallest_p_value(counts, probabilities) for counts in totals]
        for name, p in zip(names, p_values, strict=True):
            if p >= FALSE_ALARM:
                rejected.pop(name, None)
            else:
                rejected.setdefault(name, done * SHARD)
        report = ", ".join(f"{name} p={p:.2g}" for name, p in zip(names, p_values, strict=True))
        print(f"draws: {done * SHARD:,}: {report}", flush=True)
    return totals, rejected


if __name__ == "__main__":
    sys.exit(main())
