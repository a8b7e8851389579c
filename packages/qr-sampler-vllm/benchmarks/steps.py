# SPDX-License-Identifier: Apache-2.0
"""The durations of whole steps, on every set of logits and for every batch size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from benchmarks.contenders import (
    EDT,
    FILTERS,
    FIXED_07,
    FIXED_1,
    BarePasses,
    Batch,
    PluginStep,
    VLLMSampler,
    memory_floor,
    naive_numpy,
)
from benchmarks.gates import BATCHES
from benchmarks.logit_sets import KINDS, LogitSet, logit_set
from benchmarks.sources import PreparedSource, TailSource
from benchmarks.timing import Budget, Contender, Timings, compare
from qr_sampler import EntropySource, FastSelector, ReferenceSelector

__all__ = ["StepCosts", "measure_steps", "step_sets"]

SHOWN: Final = "typical, float32"
"""The set whose absolute durations are shown."""

BASES: Final = {
    "native": ("fixed_1", "fixed_07", "edt", "numpy", "numpy_bare", "tail", "grpc"),
    "native_filtered": ("filtered",),
}
"""What is divided by what on typical and peaked logits."""

YARDSTICK_ROUNDS: Final = 3
LARGEST_REFERENCE_BATCH: Final = 16
"""The readable selector takes seconds for larger ones."""


@dataclass(slots=True)
class StepCosts:
    """Durations of steps."""

    ratios: defaultdict[tuple[str, int], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By claim and batch size: one ratio per set of logits."""
    row_us: dict[tuple[str, int], float] = field(default_factory=dict)
    """By contender and batch size: microseconds per row, on one set of logits."""

    def add(self, timings: Timings, batch: int, base: str, *names: str) -> None:
        """Takes in the ratios of *names* to *base*."""
        for name in names:
            self.ratios[name, batch].append(timings.ratio(name, base))

    def show(self, timings: Timings, batch: int) -> None:
        """Takes in the durations, of those contenders that are not known yet."""
        for name in timings.seconds:
            self.row_us.setdefault((name, batch), timings.microseconds(name) / batch)


def step_sets(precisions: Sequence[str]) -> dict[str, list[LogitSet]]:
    """Returns the sets of logits by kind, one per precision."""
    count = max(BATCHES)
    return {kind: [logit_set(kind, each, count) for each in precisions] for kind in KINDS}


def measure_steps(
    costs: StepCosts,
    sets: dict[str, list[LogitSet]],
    remote: EntropySource,
    budget: Budget,
    *,
    yardsticks: bool,
) -> Iterator[str]:
    """Measures case by case into *costs* and yields the name of each case.

    Args:
        costs: Receives the results.
        sets: What :func:`step_sets` returns.
        remote: The source that asks a server.
        budget: How long to measure.
        yardsticks: Whether to measure what no gate needs, too.
    """
    for size in BATCHES:
        for each in (*sets["typical"], *sets["peaked"]):
            batch = Batch(each.rows, size)
            for base, names in BASES.items():
                timings = compare(_contenders(batch, base, names, remote), budget)
                costs.add(timings, size, base, *names)
                if each.name == SHOWN:
                    costs.show(timings, size)
            yield f"{size} rows, {each.name}"
        for each in sets["flat"]:
            batch = Batch(each.rows, size)
            timings = compare(_contenders(batch, "native", ("flat",), remote), budget)
            costs.add(timings, size, "native", "flat")
            costs.show(timings, size)
            yield f"{size} rows, {each.name}"
        if yardsticks:
            few = replace(budget, rounds=YARDSTICK_ROUNDS)
            costs.show(compare(_yardsticks(Batch(sets["typical"][0].rows, size)), few), size)
            yield f"{size} rows, yardsticks"


def _contenders(
    batch: Batch, base: str, names: tuple[str, ...], remote: EntropySource
) -> list[Contender]:
    return [batch.contender(each, _step(each, batch.size, remote)) for each in (base, *names)]


def _step(name: str, size: int, remote: EntropySource) -> Any:
    if name == "native":
        return VLLMSampler(size)
    if name == "native_filtered":
        return VLLMSampler(size, **FILTERS)
    if name == "grpc":
        return PluginStep(EDT, size, remote)
    parameters = {"fixed_07": FIXED_07, "edt": EDT, "filtered": FIXED_1.model_copy(update=FILTERS)}
    source = TailSource() if name == "tail" else PreparedSource()
    selector = {"numpy": FastSelector(), "numpy_bare": FastSelector(BarePasses)}.get(name)
    return PluginStep(parameters.get(name, FIXED_1), size, source, selector)


def _yardsticks(batch: Batch) -> list[Contender]:
    size = batch.size
    plugin = PluginStep(FIXED_1, size, PreparedSource())
    found = [
        batch.contender("native_top_k", VLLMSampler(size, top_k=50)),
        batch.contender("native_top_p", VLLMSampler(size, top_p=0.9)),
        batch.contender("native_forced", VLLMSampler(size), after=plugin),
        batch.contender("naive", naive_numpy),
        batch.contender("floor", memory_floor),
    ]
    if size <= LARGEST_REFERENCE_BATCH:
        reference = PluginStep(FIXED_1, size, PreparedSource(), ReferenceSelector())
        found.append(batch.contender("reference", reference))
    return found
