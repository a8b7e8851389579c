# SPDX-License-Identifier: Apache-2.0
"""Measures everything, prints the page's tables, and judges."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import page
from benchmarks.accelerator import measure_accelerator
from benchmarks.allocations import large_allocations
from benchmarks.amplification import measure_amplification
from benchmarks.contenders import EDT, FILTERS, FIXED_1, Batch, PluginStep
from benchmarks.entropy_server import remote_source
from benchmarks.exactness import measure_exactness
from benchmarks.gates import PLAIN_BATCH, Gate, Outcome, gates
from benchmarks.logit_sets import LogitSet
from benchmarks.report import Report
from benchmarks.scaling import draw, measure_batches, measure_vocabularies
from benchmarks.sources import PreparedSource
from benchmarks.steps import StepCosts, measure_steps, step_sets
from benchmarks.timing import Budget, pin_to_one_cpu
from benchmarks.worst_rows import measure_worst_rows

__all__ = ["main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How thorough to be."""

    budget: Budget
    """How long to measure."""
    precisions: tuple[str, ...]
    """Precisions of the logits."""
    yardsticks: bool
    """Whether to measure what no gate needs, too."""
    exactness_rows: int
    """Rows of each set on which selectors are compared."""


FULL: Final = Effort(
    budget=Budget(rounds=5, seconds=0.12),
    precisions=("float32", "bfloat16"),
    yardsticks=True,
    exactness_rows=3,
)
QUICK: Final = Effort(
    budget=Budget(rounds=3, seconds=0.02),
    precisions=("float32",),
    yardsticks=False,
    exactness_rows=1,
)
ALLOCATION_BATCH: Final = 16
FILTERED: Final[Sequence[dict[str, Any]]] = (
    FILTERS,
    {"top_n_sigma": 1.5},
    {"min_p": 0.02, "truncate_first": True},
    {"temperature_strategy": "varentropy"},
)
"""Further kinds of steps whose allocations are counted. typical-p is not among them."""

Sets = dict[str, list[LogitSet]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 when ``--check`` was given and a gate was missed, otherwise 0."""
    options = _options(arguments)
    torch.set_num_threads(1)
    if options.pin:
        pin_to_one_cpu()
    with torch.inference_mode():
        report = _measure(QUICK if options.quick else FULL)
    print(report.text)
    if options.write is not None:
        draw(report.lines, options.write.with_name(page.PLOT))
        page.update(options.write, report.text)
    missed = [outcome.gate for outcome in report.outcomes if not outcome.passed]
    for gate in missed:
        _say(f"missed: {gate.claim.what}, {_batch_name(gate)}, gate {gate.bound}")
    return int(bool(options.check and missed))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="uv run nox -s bench --", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a gate is missed")
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="use any processor")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="few iterations; writes no file")
    length.add_argument(
        "--write",
        nargs="?",
        type=Path,
        const=Path("docs/benchmarks.md"),
        metavar="PAGE",
        help="put the results into PAGE (docs/benchmarks.md)",
    )
    return parser.parse_args(arguments)


def _measure(effort: Effort) -> Report:
    sets, budget = step_sets(effort.precisions), effort.budget
    costs = _step_costs(sets, effort)
    for size, (ratio, row_us) in measure_amplification(budget).items():
        costs.ratios["amplify", size] = [ratio]
        costs.row_us["amplify", size] = row_us
    worst, typical_ms = measure_worst_rows(budget)
    costs.ratios["worst", PLAIN_BATCH] = worst
    costs.ratios["worst_typical", PLAIN_BATCH] = typical_ms
    exactness = measure_exactness(_all(sets), effort.exactness_rows)
    costs.ratios["exactness", PLAIN_BATCH] = [exactness.mismatches]
    costs.ratios["allocations", PLAIN_BATCH] = _allocations(sets)
    return Report(
        rounds=budget.rounds,
        sets=_all(sets),
        outcomes=[
            Outcome(each, tuple(costs.ratios[each.claim.key, each.batch])) for each in gates()
        ],
        row_us=costs.row_us,
        exactness_cases=exactness.cases,
        lines=[measure_vocabularies(budget), measure_batches(budget)],
        accelerator=measure_accelerator(budget),
    )


def _step_costs(sets: Sets, effort: Effort) -> StepCosts:
    costs = StepCosts()
    with remote_source() as remote:
        cases = measure_steps(costs, sets, remote, effort.budget, yardsticks=effort.yardsticks)
        for case in cases:
            _say(f"measured: {case}")
    return costs


def _allocations(sets: Sets) -> list[float]:
    """Returns the number of large allocations of each kind of step; says where they are made."""
    counts: list[float] = []
    for each in chain(*sets.values()):
        batch = Batch(each.rows, ALLOCATION_BATCH)
        for parameters in (FIXED_1, EDT, *(FIXED_1.model_copy(update=wish) for wish in FILTERED)):
            found = _large(batch, PluginStep(parameters, batch.size, PreparedSource()))
            counts.append(float(found.total()))
            for place, count in found.most_common():
                _say(f"{each.name}: {count} large allocations at {place}")
    return counts


def _large(batch: Batch, step: PluginStep) -> Counter[str]:
    return large_allocations(lambda: step(batch.logits), lambda: batch.refresh(0))


def _all(sets: Sets) -> list[LogitSet]:
    return list(chain(*sets.values()))


def _batch_name(gate: Gate) -> str:
    return "any batch" if gate.batch == PLAIN_BATCH else f"{gate.batch} rows"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
