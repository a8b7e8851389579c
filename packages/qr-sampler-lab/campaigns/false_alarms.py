# SPDX-License-Identifier: Apache-2.0
"""How often every test of the laboratory alarms when there is nothing, and when there is something.

Each scenario draws data whose law is known, runs the public tests on them and keeps the p-values.
Under the null hypothesis the share of p-values up to 1 % must lie within the binomial interval of
the level that the test can attain: 1 % for continuous statistics, the exact smaller level for
counts, where only the upper end counts if that level depends on the data. With an effect, the share
must be within 3 % of the power that theory gives. The exit code is 1 when any row
misses.

    python campaigns/false_alarms.py --runs 10000 --processes 2

A scenario takes seconds to a few minutes; ``--only NAME`` runs those whose name contains NAME.
Every run has its own seed, so a table can be repeated in parts.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from qr_sampler_lab.analysis import (
    Battery,
    BlockBits,
    BlockMeans,
    Cusum,
    EmpiricalLaw,
    EProcess,
    LatticeLaw,
    LjungBox,
    Moments,
    NetworkVariance,
    PairedStreams,
    Runs,
    Sensitivity,
    Session,
    SplitMeans,
    TestResult,
    anderson_darling,
    change_of_evidence,
    compare,
    difference_test,
    discards_test,
    effect_of_bit_bias,
    effect_of_byte_mean,
    funnel,
    kolmogorov_smirnov,
    location_power,
    mean_test,
    stouffer,
    uniform_mean_test,
)

LEVEL = 0.01
MISS = 1e-4
"""Probability that a row with the right level misses its interval on one side."""
SHARD = 250
"""Runs per piece of work; each piece has a seed of its own."""

P_VALUES: TypeAlias = dict[str, float]
Floats: TypeAlias = NDArray[np.float64]


class Scenario(NamedTuple):
    """One way to draw data, and the tests that look at them."""

    name: str
    run: Callable[[np.random.Generator], P_VALUES]
    levels: dict[str, float]
    """Levels of tests whose statistic is a count, where they are known exactly."""
    bounded: frozenset[str]
    """Tests that promise no more than an upper bound of 1 %."""


def of(results: Iterable[TestResult]) -> P_VALUES:
    """Returns p-values by the names of tests."""
    return {result.name: result.p_value for result in results}


# Null hypotheses.

TOKENS = 2_000
TAIL_LEVEL = float(
    sum(
        stats.binom.pmf(hits, TOKENS, 1 / 64)
        for hits in range(TOKENS + 1)
        if abs(hits - TOKENS / 64) < 60 and stats.binomtest(hits, TOKENS, 1 / 64).pvalue <= LEVEL
    )
)
BASELINE_BLOCKS = 1_000
SMALL_LAW = LatticeLaw.of_bytes(16)
BITS_LAW = LatticeLaw.of_bits(64)


def battery_of(about: str, values: Floats, **parameters: object) -> Battery:
    """Returns a battery that has seen *values* in two parts, its blocks of a hundred tokens."""
    battery = Battery(about, block_tokens=100, **parameters)  # type: ignore[arg-type]
    for chunk in np.array_split(values, 2):
        battery.add(chunk)
    return battery


def ideal_u(rng: np.random.Generator) -> P_VALUES:
    """U of an ideal source."""
    return of(battery_of("u", rng.random(TOKENS)).results())


def ideal_statistic(rng: np.random.Generator) -> P_VALUES:
    """A normal statistic of an ideal source."""
    return of(battery_of("statistic", rng.standard_normal(TOKENS)).results())


def lattice_of_bits(rng: np.random.Generator) -> P_VALUES:
    """Z-scores of the ones in 64 bytes, with their exact law."""
    ones = rng.binomial(BITS_LAW.total, 0.5, TOKENS)
    z = (ones - BITS_LAW.total / 2) / BITS_LAW.deviation
    battery = Battery("statistic", law=BITS_LAW, block_tokens=100)
    battery.add(z, ones)
    return of(battery.results())


def lattice_of_bytes(rng: np.random.Generator) -> P_VALUES:
    """U of the sums of 16 bytes, with their exact law."""
    sums = rng.integers(0, 256, (TOKENS, 16)).sum(axis=1)
    z = (sums - SMALL_LAW.total / 2) / SMALL_LAW.deviation
    battery = Battery("u", law=SMALL_LAW, block_tokens=100)
    battery.add(special.ndtr(z), sums)
    return of(battery.shape())


def baseline(rng: np.random.Generator) -> P_VALUES:
    """A statistic and u that refer to a short baseline: all of them share its error."""
    error = rng.standard_normal() / math.sqrt(BASELINE_BLOCKS)
    z = rng.standard_normal(TOKENS) + error
    moments, uniform = Moments(), Moments()
    moments.add(z)
    uniform.add(special.ndtr(z))
    return {
        "mean": mean_test(moments, baseline_blocks=BASELINE_BLOCKS).p_value,
        "mean of u": uniform_mean_test(uniform, baseline_blocks=BASELINE_BLOCKS).p_value,
    }


def baseline_arms(rng: np.random.Generator) -> P_VALUES:
    """Two unequal arms on one baseline, as :func:`compare` and paired e-processes see them."""
    error = rng.standard_normal() / math.sqrt(BASELINE_BLOCKS)
    arm = battery_of("statistic", rng.standard_normal(700) + error)
    control = battery_of("statistic", rng.standard_normal(TOKENS) + error)
    return of(compare(arm, control))


def unequal_arms(rng: np.random.Generator) -> P_VALUES:
    """Two arms of 500 and 3,000 tokens."""
    arm, control = battery_of("u", rng.random(500)), battery_of("u", rng.random(3_000))
    return of(compare(arm, control))


def lattice_arms(rng: np.random.Generator) -> P_VALUES:
    """Two unequal arms on one lattice, without a law."""
    ones = rng.binomial(BITS_LAW.total, 0.5, 2_500)
    u = special.ndtr((ones - BITS_LAW.total / 2) / BITS_LAW.deviation)
    return of(compare(battery_of("u", u[:500]), battery_of("u", u[500:])))


def few_tokens(rng: np.random.Generator) -> P_VALUES:
    """Twelve tokens, where p-values are exact or nearly so."""
    u = rng.random(12)
    law, moments, order = EmpiricalLaw(), Moments(), Runs()
    for part in (law, moments, order):
        part.add(u)
    both_sides = 0 < (u > 0.5).sum() < u.size
    return {
        "mean": uniform_mean_test(moments).p_value,
        "kolmogorov_smirnov": kolmogorov_smirnov(law).p_value,
        "anderson_darling": anderson_darling(law).p_value,
        "runs": order.result().p_value if both_sides else 1.0,
    }


def counted(rng: np.random.Generator) -> P_VALUES:
    """Numbers that are counted in cells instead of kept."""
    law = EmpiricalLaw(keep=0, cells=2**16)
    law.add(rng.random(TOKENS))
    return of((kolmogorov_smirnov(law), anderson_darling(law)))


def bits(rng: np.random.Generator) -> P_VALUES:
    """Ones and sums of 200 blocks of 64 bytes."""
    blocks = rng.integers(0, 256, (200, 64), dtype=np.uint8)
    counts = BlockBits()
    counts.add(np.unpackbits(blocks, axis=1).sum(axis=1), blocks.sum(axis=1, dtype=int), 64)
    tests = (counts.ones_test(), counts.sum_test(), counts.joint_test(), counts.spread_test())
    return of(tests)


def sessions(rng: np.random.Generator) -> P_VALUES:
    """Twelve sessions of unequal lengths, and five sources of which some are absent at times."""
    errors = rng.uniform(0.5, 3.0, 12)
    effects = errors * rng.standard_normal(12)
    (shape,) = funnel(
        [
            Session(name=str(k), arm="a", n=1, effect=effect, error=error)
            for k, (effect, error) in enumerate(zip(effects.tolist(), errors.tolist(), strict=True))
        ]
    )
    network, scores = NetworkVariance(), rng.standard_normal((2_000, 5))
    scores[rng.random(scores.shape) < 0.2] = np.nan
    network.add(scores)
    combined = stouffer(effects / errors, 1.0 / errors)
    tests = combined, shape.heterogeneity, shape.asymmetry
    return of((*tests, network.netvar_test(), network.pairs_test()))


def selections(rng: np.random.Generator) -> P_VALUES:
    """Fallback tokens, discarded rows, and means by what was known before the draw."""
    z = rng.standard_normal(TOKENS)
    sensitivity = Sensitivity()
    sensitivity.add(z, rng.random(TOKENS) < 0.05)
    split = SplitMeans([0.5, 1.0, 2.0], by="entropy_nats")
    split.add(z, rng.exponential(1.0, TOKENS))
    rows = np.array([30_000, 60_000, 40_000])
    lost = rng.binomial(rows, 0.01)
    discards = discards_test(lost, rows - lost)
    few = rng.binomial([500, 900], 0.05)
    fisher = discards_test(few, np.array([500, 900]) - few).renamed("discards, Fisher")
    return of((*sensitivity.results(), split.result(), discards, fisher))


def evidence(rng: np.random.Generator) -> P_VALUES:
    """The change of evidence over a hundred scores."""
    change = change_of_evidence(rng.standard_normal(100), tau=0.1, permutations=199, rng=rng)
    return of(change.results)


def anytime(rng: np.random.Generator) -> P_VALUES:
    """E-processes looked at after every token: on two sides, on one, of arms, of lattices."""
    error = rng.standard_normal() / math.sqrt(BASELINE_BLOCKS)
    pairs = PairedStreams().add(
        rng.standard_normal(2 * TOKENS) + error, rng.random(2 * TOKENS) < 0.5
    )
    ones = (rng.binomial(BITS_LAW.total, 0.5, TOKENS) - BITS_LAW.total / 2) / BITS_LAW.deviation
    scores = rng.standard_normal(TOKENS)
    return {
        "two-sided": evidence_of(scores),
        "greater": evidence_of(scores, alternative="greater"),
        "paired arms, baseline": evidence_of(pairs),
        "lattice": evidence_of(ones),
    }


def evidence_of(scores: Floats, **parameters: str) -> float:
    """Returns the anytime-valid p-value of *scores*."""
    process = EProcess(tau=0.1, alpha=LEVEL, **parameters)  # type: ignore[arg-type]
    process.add(scores)
    return process.result().p_value


NULL = tuple(
    Scenario(run.__name__, run, levels, frozenset(bounded))
    for run, levels, bounded in (
        (ideal_u, {"tails": TAIL_LEVEL}, ()),
        (ideal_statistic, {"tails": TAIL_LEVEL}, ()),
        (lattice_of_bits, {"tails": TAIL_LEVEL}, ()),
        (lattice_of_bytes, {"tails": TAIL_LEVEL}, ()),
        (baseline, {}, ()),
        (baseline_arms, {}, ("two_sample_ks",)),
        (unequal_arms, {}, ("two_sample_ks",)),
        (lattice_arms, {}, ("two_sample_ks",)),
        (few_tokens, {}, ("runs",)),
        (counted, {}, ()),
        (bits, {}, ()),
        (sessions, {}, ()),
        (selections, {}, ("discards, Fisher",)),
        (evidence, {}, ()),
        (anytime, {}, ("two-sided", "greater", "paired arms, baseline", "lattice")),
    )
)


# Effects, with the power that theory gives.


class Power(NamedTuple):
    """One effect: data with it, and the theory of the tests that look."""

    name: str
    run: Callable[[np.random.Generator], P_VALUES]
    theory: dict[str, float]


BLOCK = 1_024
BIASED_BIT = 0.501
BIASED_BYTES = 127.5 * 1.001
DRIFT = 0.137
"""Of a z-score, from -0.137 to 0.137: 0.1 of a byte in blocks of 10,240 bytes."""
DRIFT_TOKENS = 3_000
STICKY = 0.1
"""Probability with which a number repeats the one before."""


def biased_bits(rng: np.random.Generator) -> P_VALUES:
    """Z-scores of ones, of biased bits and of fair ones."""
    arm = rng.binomial(8 * BLOCK, BIASED_BIT, 400)
    control = rng.binomial(8 * BLOCK, 0.5, 600)
    moments = tuple(
        moments_of((ones - 4 * BLOCK) / math.sqrt(2 * BLOCK)) for ones in (arm, control)
    )
    return of((mean_test(moments[0]), difference_test(*moments)))


BITS_EFFECT = effect_of_bit_bias(BIASED_BIT, BLOCK)


def biased_bytes(rng: np.random.Generator) -> P_VALUES:
    """Bytes whose bits have a common bias that moves their mean by a tenth of a percent."""
    probability = 0.5 + (BIASED_BYTES - 127.5) / 255.0
    weights = 2 ** np.arange(8)
    z = [
        (rng.binomial(BLOCK, p, (tokens, 8)) @ weights - 127.5 * BLOCK)
        / math.sqrt((256**2 - 1) / 12 * BLOCK)
        for tokens, p in ((5_000, probability), (5_000, 0.5))
    ]
    moments = tuple(map(moments_of, z))
    return of((mean_test(moments[0]), difference_test(*moments)))


BYTES_EFFECT = effect_of_byte_mean(BIASED_BYTES, BLOCK)


def drift(rng: np.random.Generator) -> P_VALUES:
    """Z-scores whose mean rises from below 0 to above."""
    z = rng.standard_normal(DRIFT_TOKENS) + np.linspace(-DRIFT, DRIFT, DRIFT_TOKENS)
    cusum, blocks = Cusum(), BlockMeans(100)
    cusum.add(z)
    blocks.add(z)
    return of((cusum.result(), blocks.result()))


def drift_theory(bridges: int) -> dict[str, float]:
    """Power of CUSUM by the bridge plus a parabola, of block means by the noncentral F law.

    The bridge is sampled on a grid of 30,000 points, ten times as fine as the tokens.
    """
    grid = 30_000
    time_ = np.arange(1, grid + 1) / grid
    parabola = math.sqrt(DRIFT_TOKENS) * DRIFT * (time_**2 - time_)
    rng = np.random.default_rng(9)
    critical, hits = special.kolmogi(LEVEL), 0
    for _ in range(bridges):
        walk = np.cumsum(rng.standard_normal(grid)) / math.sqrt(grid)
        hits += bool(np.abs(walk - time_ * walk[-1] + parabola).max() > critical)
    blocks, size = DRIFT_TOKENS // 100, 100
    means = np.linspace(-DRIFT, DRIFT, DRIFT_TOKENS).reshape(blocks, size).mean(axis=1)
    freedom = blocks - 1, blocks * (size - 1)
    f = stats.f.isf(LEVEL, *freedom)
    return {
        "cusum": hits / bridges,
        "block_means": float(stats.ncf.sf(f, *freedom, size * (means**2).sum())),
    }


def stickiness(rng: np.random.Generator) -> P_VALUES:
    """Uniform numbers of which some repeat the one before."""
    fresh = rng.random(TOKENS)
    # The last draw that did not repeat its predecessor.
    origin = np.where(rng.random(TOKENS) < STICKY, 0, np.arange(TOKENS))
    u = fresh[np.maximum.accumulate(origin)]
    lags, order = LjungBox(), Runs()
    lags.add(u)
    order.add(u)
    return of((lags.result(), order.result()))


def stickiness_theory() -> dict[str, float]:
    """Correlations STICKY**k at lag k, and changes of side with probability (1 - STICKY) / 2."""
    noncentrality = TOKENS * sum(STICKY ** (2 * k) for k in range(1, 11))
    q = stats.chi2.isf(LEVEL, 10)
    change = (1.0 - STICKY) / 2.0
    half = -special.ndtri(LEVEL / 2.0) * math.sqrt(TOKENS) / 2.0
    deviation = math.sqrt(TOKENS * change * (1.0 - change))
    few = special.ndtr((TOKENS / 2.0 - half - TOKENS * change) / deviation)
    return {"ljung_box": float(stats.ncx2.sf(q, 10, noncentrality)), "runs": float(few)}


def moments_of(values: Floats) -> Moments:
    """Returns the moments of *values*."""
    moments = Moments()
    moments.add(values)
    return moments


def power_scenarios(bridges: int = 4_000) -> tuple[Power, ...]:
    """Returns all effects with their theory, that of CUSUM from so many bridges."""
    theory = partial(location_power, alpha=LEVEL)
    return (
        Power(
            "bits that are one with p = 0.501",
            biased_bits,
            {
                "mean": theory(BITS_EFFECT, 400),
                "difference_of_means": theory(BITS_EFFECT, 400, 600),
            },
        ),
        Power(
            "bytes 0.1 % too large",
            biased_bytes,
            {
                "mean": theory(BYTES_EFFECT, 5_000),
                "difference_of_means": theory(BYTES_EFFECT, 5_000, 5_000),
            },
        ),
        Power("drift without a mean", drift, drift_theory(bridges)),
        Power("numbers that repeat", stickiness, stickiness_theory()),
    )


# Running and judging.


def shard(run: Callable[[np.random.Generator], P_VALUES], seed: int, runs: int) -> dict[str, int]:
    """Returns how many of *runs* runs every test alarmed in."""
    alarms: dict[str, int] = {}
    for index in range(runs):
        for name, p_value in run(np.random.default_rng([seed, index])).items():
            alarms[name] = alarms.get(name, 0) + (p_value <= LEVEL)
    return alarms


def alarms_of(
    pool: ProcessPoolExecutor, run: Callable[[np.random.Generator], P_VALUES], runs: int
) -> dict[str, int]:
    """Returns the alarms of all shards together."""
    sizes = [min(SHARD, runs - start) for start in range(0, runs, SHARD)]
    futures = [pool.submit(shard, run, seed, size) for seed, size in enumerate(sizes)]
    total: dict[str, int] = {}
    for future in futures:
        for name, count in future.result().items():
            total[name] = total.get(name, 0) + count
    return total


def null_rows(pool: ProcessPoolExecutor, scenario: Scenario, runs: int) -> Iterator[bool]:
    """Prints a row per test and yields whether it holds."""
    for name, count in alarms_of(pool, scenario.run, runs).items():
        level = scenario.levels.get(name, LEVEL)
        low, high = stats.binom.ppf((MISS, 1.0 - MISS), runs, level)
        bounded = name in scenario.bounded
        holds = (bounded or low <= count) and count <= high
        sides = (
            f"at most {high / runs:.2%}" if bounded else f"{low / runs:.2%} to {high / runs:.2%}"
        )
        row(scenario.name, name, count / runs, sides, holds)
        yield holds


def power_rows(pool: ProcessPoolExecutor, power: Power, runs: int) -> Iterator[bool]:
    """Prints a row per test and yields whether it holds."""
    for name, count in alarms_of(pool, power.run, runs).items():
        holds = abs(count / runs / power.theory[name] - 1.0) <= 0.03
        row(power.name, name, count / runs, f"theory {power.theory[name]:.1%}", holds)
        yield holds


def row(scenario: str, test: str, rate: float, wanted: str, holds: bool) -> None:
    """Prints one row of the table."""
    verdict = "holds" if holds else "MISSES"
    print(f"{scenario:34} {test:24} {rate:7.2%}   {wanted:18} {verdict}", flush=True)


def main() -> int:
    """Runs every scenario and returns the exit code."""
    parser = argparse.ArgumentParser(description="False alarms and power of every test.")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    arguments = parser.parse_args()
    holds: list[bool] = []
    started = time.monotonic()
    print(f"Alarms at 1 % in {arguments.runs:,} runs of every scenario.\n")
    with ProcessPoolExecutor(arguments.processes) as pool:
        for scenario in NULL:
            if arguments.only in scenario.name:
                holds += null_rows(pool, scenario, arguments.runs)
        for power in power_scenarios():
            if arguments.only in power.name:
                holds += power_rows(pool, power, arguments.runs)
    taken = time.monotonic() - started
    print(f"\n{sum(holds)} of {len(holds)} rows hold ({taken:.0f} s).")
    return 0 if holds and all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
