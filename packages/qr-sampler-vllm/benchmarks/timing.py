# SPDX-License-Identifier: Apache-2.0
"""Fair comparisons of durations: interleaved rounds, and ratios that are formed inside a round.

Machines change speed while a benchmark runs. Contenders therefore take turns, in an order that
rotates, and one is compared with another within the same round only. A round is represented by the
median of its iterations and the comparison by the median of its rounds.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Budget", "Contender", "Timings", "compare", "pin_to_one_cpu", "unpin"]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something whose duration is measured."""

    name: str
    """Distinguishes it from the others."""
    prepare: Callable[[int], None]
    """Called before each iteration with its number; not timed."""
    run: Callable[[], object]
    """What is timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long to measure."""

    rounds: int
    """Number of rounds."""
    seconds: float
    """Time that a contender may take in one round; at least one iteration is made."""
    most_iterations: int = 100
    """Most iterations of one contender in one round."""

    def iterations(self, estimate_s: float) -> int:
        """Returns how many iterations of *estimate_s* seconds fit into a round."""
        return max(1, min(self.most_iterations, int(self.seconds / estimate_s)))


@dataclass(frozen=True, slots=True)
class Timings:
    """The median duration of every contender in every round."""

    seconds: dict[str, list[float]]
    """By name: one median per round."""

    def microseconds(self, name: str) -> float:
        """Returns the median over the rounds, in microseconds."""
        return 1e6 * median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Returns the median over the rounds of the duration of *name* divided by *base*'s."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return median(one / other for one, other in pairs)


def compare(contenders: Sequence[Contender], budget: Budget) -> Timings:
    """Returns the durations of *contenders*, which take turns."""
    counts = {each.name: budget.iterations(_estimate(each)) for each in contenders}
    seconds: dict[str, list[float]] = {each.name: [] for each in contenders}
    for turn in range(budget.rounds):
        gc.collect()
        gc.disable()
        try:
            for position in range(len(contenders)):
                contender = contenders[(turn + position) % len(contenders)]
                count = counts[contender.name]
                durations = [_once(contender, turn * count + i) for i in range(count)]
                seconds[contender.name].append(median(durations))
        finally:
            gc.enable()
    return Timings(seconds)


def pin_to_one_cpu() -> None:
    """Keeps this process on the last of its processors, where the system offers to."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def unpin() -> None:
    """Lets this process run everywhere again."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _estimate(contender: Contender) -> float:
    """Returns the shorter of two durations; the first one fills buffers."""
    return min(_once(contender, 0), _once(contender, 1))


def _once(contender: Contender, iteration: int) -> float:
    contender.prepare(iteration)
    start = time.perf_counter()
    contender.run()
    return time.perf_counter() - start
