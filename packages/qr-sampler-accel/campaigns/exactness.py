# SPDX-License-Identifier: Apache-2.0
"""Compares selectors with an oracle on a million generated cases.

A case is one row of logits, one temperature, one set of filters and one u. Rows are random, flat,
peaked, tied, rounded to bfloat16, masked, down to one survivor or full of denormal weights, with 1
to 262,144 tokens; half of the u are steps of the distribution function and their neighbours in
float64. The oracle computes masses, order, truncation and quantile on its own, in whole numbers;
token, rank and number of candidates have to be equal, and the probability as near as promised.

    python campaigns/exactness.py --cases 1000000 --processes 2
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qr_sampler import FastSelector, ReferenceSelector, Rows, SamplingParameters, Selector
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.testing.selection_cases import (
    LOGIT_KINDS,
    random_logits,
    random_parameters,
    random_temperatures,
)
from qr_sampler_accel import host_selector

LARGEST = 262_144
SHARDS = 64
"""Pieces of work with a seed each, so that the cases do not depend on the number of processes."""

ROUNDED_TOTAL = 1e-5
"""How much a probability may be off that refers to a rounded total."""

Row = NDArray[np.float32]
Masses = NDArray[np.int64]
AnySelector = Selector[Any, Any]


@dataclass(frozen=True)
class Case:
    """One row with its parameters and the u to select at."""

    kind: str
    logits: Row
    temperature: float
    parameters: SamplingParameters

    def __str__(self) -> str:
        changed = self.parameters.model_dump(exclude_defaults=True)
        return f"{self.kind}, V={self.logits.size}, T={self.temperature!r}, {changed}"


class Oracle:
    """One row, prepared for any number of quantiles."""

    def __init__(self, case: Case) -> None:
        parameters, inverse = case.parameters, 1.0 / case.temperature
        self.exponent = 35 - max(0, (case.logits.size - 1).bit_length() - 18)
        exact = case.logits.astype(np.float64)
        self.order = np.lexsort((np.arange(exact.size), -exact))
        with np.errstate(over="ignore"):
            self.distance = (exact[self.order] - exact.max()).astype(np.float32)
        tempered = self._masses(inverse)
        filtered = self._masses(1.0) if parameters.truncate_first else tempered
        stop = self._leading(case, filtered)
        self.start, self.stop = self._typical(tempered[:stop], inverse, parameters.typical_p)
        self.running = np.cumsum(tempered[self.start : self.stop])
        self.total = int(self.running[-1])

    def _masses(self, inverse: float) -> Masses:
        """Returns rounded exponentials: Cody and Waite's reduction, Taylor to degree 11."""
        y = np.maximum(self.distance.astype(np.float64) * inverse, -700.0)
        k = np.rint(y * 1.4426950408889634)
        r = (y - k * 0.6931471803691238) - k * 1.9082149292705877e-10
        result = np.full_like(r, 1.0 / math.factorial(11))
        for degree in range(10, -1, -1):
            result = result * r + 1.0 / math.factorial(degree)
        scaled = np.ldexp(result, k.astype(np.int64) + self.exponent)
        masses: Masses = np.rint(scaled).astype(np.int64)
        return masses

    def _leading(self, case: Case, masses: Masses) -> int:
        parameters, kept = case.parameters, masses.size
        if parameters.top_n_sigma > 0.0:
            farthest = -(parameters.top_n_sigma * _deviation(case.logits))
            kept = int(np.count_nonzero(self.distance.astype(np.float64) >= farthest))
        if parameters.top_k > 0:
            kept = min(kept, parameters.top_k)
        if parameters.min_p > 0.0:
            threshold = math.ceil(Fraction(parameters.min_p) * 2**self.exponent)
            kept = min(kept, int(np.count_nonzero(masses >= threshold)))
        return kept if parameters.top_p == 1.0 else _fewest(masses[:kept], parameters.top_p)

    def _typical(self, masses: Masses, inverse: float, typical_p: float) -> tuple[int, int]:
        if typical_p == 1.0:
            return 0, masses.size
        y = np.maximum(self.distance[: masses.size].astype(np.float64) * inverse, -26.0)
        energies = [round(-value * 2**14) for value in y.tolist()]
        weights = [mass // 1024 for mass in masses.tolist()]
        mean = sum(w * e for w, e in zip(weights, energies, strict=True)) // sum(weights)
        offset = np.array([energy - mean for energy in energies])
        ranks, below = np.arange(masses.size), offset < 0
        nearest = np.lexsort((np.where(below, -ranks, ranks), ~below, np.abs(offset)))
        kept = np.sort(nearest[: _fewest(masses[nearest], typical_p)])
        assert (np.diff(kept) == 1).all(), "typical-p left a gap"
        return int(kept[0]), int(kept[-1]) + 1

    def pick(self, u: float) -> tuple[int, int, int, float]:
        """Returns token, rank, candidates and probability."""
        goal = math.ceil(Fraction(u) * self.total)
        index = int(np.searchsorted(self.running, goal, side="left"))
        mass = int(self.running[index]) - (int(self.running[index - 1]) if index else 0)
        rank = self.start + index
        return int(self.order[rank]), rank, self.stop - self.start, mass / self.total

    def quantiles(self, rng: np.random.Generator, count: int) -> list[float]:
        """Returns both ends, steps of the distribution function, their neighbours, and others."""
        anywhere = rng.integers(self.running.size, size=count)
        probable = np.searchsorted(self.running, self.total * rng.random(count))
        ranks = np.where(rng.random(count) < 0.5, anywhere, probable)
        steps = self.running[ranks] / self.total
        edges = np.nextafter(steps, rng.choice([0.0, 1.0, 2.0], count))
        edges = np.where(rng.random(count) < 0.4, steps, edges)
        chosen = np.where(rng.random(count) < 0.5, edges, rng.random(count))
        chosen[:2] = (U_MIN, U_MAX)
        return [float(u) for u in np.clip(chosen, U_MIN, U_MAX)]


def _fewest(masses: Masses, share: float) -> int:
    """Returns how many of the first *masses* are needed to reach *share* of their sum."""
    running = np.cumsum(masses)
    goal = math.ceil(Fraction(share) * int(running[-1]))
    return int(np.searchsorted(running, goal, side="left")) + 1


def _deviation(logits: Row) -> float:
    """Returns the population standard deviation from exact sums, rounded to float32."""
    fractions, exponents = np.frexp(logits[np.isfinite(logits)].astype(np.float64))
    mantissas, count = (fractions * 2**24).astype(np.int64), fractions.size
    total = squares = 0
    # In units of 2**-224, of which every float32 number is a multiple.
    for exponent in np.unique(exponents).tolist():
        block = mantissas[exponents == exponent]
        square = block * block
        total += int(block.sum()) << (exponent + 200)
        exact = (int((square >> 24).sum()) << 24) + int((square & (2**24 - 1)).sum())
        squares += exact << (2 * exponent + 400)
    root = math.isqrt((count * squares - total * total) << 200)
    return float(np.float32(float(Fraction(root, count << 324))))


def random_case(rng: np.random.Generator) -> tuple[Case, int]:
    """Returns a row and how many u to try on it; large rows are expensive and rare."""
    vocab_size = int(math.exp(rng.uniform(0.0, math.log(LARGEST + 1))))
    if vocab_size > 20_000 and rng.random() < 0.7:
        vocab_size = int(rng.integers(3_000, 20_000))
    kind = str(rng.choice(LOGIT_KINDS))
    parameters = random_parameters(rng, vocab_size)
    if rng.random() < 0.25:
        parameters = SamplingParameters.model_validate({})
    case = Case(
        kind=kind,
        logits=random_logits(rng, kind, vocab_size),
        temperature=float(random_temperatures(rng, 1)[0]),
        parameters=parameters,
    )
    return case, 200 if vocab_size <= 3_072 else 60 if vocab_size <= 20_000 else 20


def selections(
    selector: AnySelector, case: Case, quantiles: list[float]
) -> Iterator[tuple[int, int, int, float]]:
    """Yields token, rank, candidates and probability for each u, from one plan."""
    temperature = np.array([case.temperature])
    measurement = selector.measure(case.logits[np.newaxis], Rows([case.parameters]), temperature)
    plan = selector.prepare(measurement, temperature)
    for u in quantiles:
        result = selector.pick(plan, np.array([u]))
        yield (
            int(result.token_ids[0]),
            int(result.rank[0]),
            int(result.candidates[0]),
            float(result.probability[0]),
        )


def agrees(
    found: tuple[int, int, int, float], expected: tuple[int, int, int, float], tolerance: float
) -> bool:
    """Whether a selection is the expected one, its probability within a relative *tolerance*."""
    return found[:3] == expected[:3] and abs(found[3] - expected[3]) <= tolerance * expected[3]


@dataclass
class Report:
    """What one shard found."""

    cases: int
    kinds: Counter[str]
    mismatches: list[str]


def run_shard(seed: int, shard: int, goal: int, tensors: bool) -> Report:
    """Runs at least *goal* cases; the same ones for the same seed and shard."""
    rng = np.random.default_rng([seed, shard])
    selectors: list[tuple[AnySelector, float]] = [(ReferenceSelector(), 0.0)]
    selectors += [(FastSelector(), ROUNDED_TOTAL), (host_selector(), ROUNDED_TOTAL)]
    if tensors:
        selectors.append((_on_tensors(), ROUNDED_TOTAL))
    report = Report(0, Counter(), [])
    while report.cases < goal:
        case, count = random_case(rng)
        _check(case, count, selectors, rng, report)
    return report


def _check(
    case: Case,
    count: int,
    selectors: list[tuple[AnySelector, float]],
    rng: np.random.Generator,
    report: Report,
) -> None:
    oracle = Oracle(case)
    quantiles = oracle.quantiles(rng, count)
    expected = [oracle.pick(u) for u in quantiles]
    report.cases += count
    report.kinds[case.kind] += count
    for selector, tolerance in selectors:
        found = selections(selector, case, quantiles)
        for u, wanted, got in zip(quantiles, expected, found, strict=True):
            if wanted[3] <= 0.0 or not agrees(got, wanted, tolerance):
                name = type(selector).__name__
                report.mismatches.append(f"{name}: {case}, u={u!r}: {got} instead of {wanted}")


def _on_tensors() -> AnySelector:
    """Returns the selector for accelerators, at work on the host."""
    import torch

    from qr_sampler_accel.device.selector import TorchSelector

    class OnTensors(TorchSelector):
        """The selector for tensors, on those of the host."""

        def measure(self, logits: Any, *arguments: Any) -> Any:
            return super().measure(torch.from_numpy(logits), *arguments)

    return OnTensors()


def main() -> int:
    """Runs the campaign and returns the exit status: 1 on any mismatch."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=10**6)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20_260_101)
    parser.add_argument(
        "--tensors", action="store_true", help="check the selector for accelerators as well"
    )
    options = parser.parse_args()
    for module in ("numba", *(["torch"] if options.tensors else [])):
        if find_spec(module) is None:
            print(f"exactness: {module} is not installed", file=sys.stderr)
            return 2
    goal, started = -(-options.cases // SHARDS), time.monotonic()
    cases, kinds, mismatches = 0, Counter[str](), list[str]()
    with ProcessPoolExecutor(options.processes) as pool:
        futures = [
            pool.submit(run_shard, options.seed, shard, goal, options.tensors)
            for shard in range(SHARDS)
        ]
        for done, future in enumerate(futures, start=1):
            report = future.result()
            cases, kinds = cases + report.cases, kinds + report.kinds
            mismatches += report.mismatches
            seconds = time.monotonic() - started
            print(
                f"shard {done}/{SHARDS}: {cases:,} cases, {len(mismatches)} mismatches, "
                f"{cases / seconds:,.0f} cases/s",
                flush=True,
            )
    for mismatch in mismatches[:20]:
        print(mismatch)
    compared = "oracle, ReferenceSelector and FastSelector in NumPy and compiled"
    compared += ", and TorchSelector" if options.tensors else " (--tensors: one more)"
    print(
        f"exactness: {cases:,} cases of {len(kinds)} kinds, {len(mismatches)} mismatches between "
        f"{compared}; seed {options.seed}, {time.monotonic() - started:.0f} s"
    )
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
