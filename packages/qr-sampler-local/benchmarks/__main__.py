# SPDX-License-Identifier: Apache-2.0
"""The command behind ``uv run nox -s bench_local``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from benchmarks.step_cost import StepCost, measure

STEP_US: Final = 30.0
"""The most that a step may cost beyond its sampling, in microseconds."""

ROW_US: Final = 8.0
"""What it may cost beyond that for each row."""


def main() -> int:
    """Measures, prints the table, and fails when a step costs more than it may."""
    parser = argparse.ArgumentParser(prog="bench_local", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="the median of so many counts")
    parser.add_argument("--steps", type=int, default=400, help="steps of a round with one row")
    parser.add_argument("--vocab-size", type=int, default=151_936, help="columns of the logits")
    arguments = parser.parse_args()
    costs = measure(arguments.rounds, arguments.vocab_size, arguments.steps)
    print(table(costs))
    return 0 if all(map(is_met, costs)) else 1


def table(costs: Sequence[StepCost]) -> str:
    """Returns a Markdown table of *costs*."""
    lines = [
        "| rows | ledger | selection, us | source | other sampling | overhead | gate | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(row, costs)])


def row(cost: StepCost) -> str:
    """Returns the row of *cost*."""
    return (
        f"| {cost.rows} | {'yes' if cost.ledger else 'no'} | {cost.selection_us:,.0f} "
        f"| {cost.source_us:.1f} | {cost.sampling_us:.1f} | {cost.overhead_us:.1f} "
        f"| {bound_us(cost):.1f} | {'pass' if is_met(cost) else 'MISSED'} |"
    )


def bound_us(cost: StepCost) -> float:
    """The most that a step with as many rows as that of *cost* may cost beyond its sampling."""
    return STEP_US + ROW_US * cost.rows


def is_met(cost: StepCost) -> bool:
    """Whether *cost* is as small as it has to be."""
    return cost.overhead_us <= bound_us(cost)


if __name__ == "__main__":
    sys.exit(main())
