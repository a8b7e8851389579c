# SPDX-License-Identifier: Apache-2.0
"""The command behind ``uv run nox -s bench_host``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from benchmarks.host_cost import BATCHES, HostCost, measure

BOUND_US: Final = 8.0
"""The most that a token of the largest batch may cost the thread that steps, in microseconds."""


def main() -> int:
    """Measures, prints the table, and fails when the largest batch costs more than it may."""
    parser = argparse.ArgumentParser(prog="bench_host", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="the median of so many counts")
    parser.add_argument("--tokens", type=int, default=8_000, help="tokens of a round")
    arguments = parser.parse_args()
    costs = measure(arguments.rounds, arguments.tokens)
    print(table(costs))
    return 0 if all(is_met(cost) for cost in costs) else 1


def table(costs: Sequence[HostCost]) -> str:
    """Returns a Markdown table of *costs*."""
    lines = [
        "| rows | ledger | us a token, in steps | writing | gate | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cost in costs:
        gated = cost.rows == BATCHES[-1]
        lines.append(
            f"| {cost.rows} | {'yes' if cost.ledger else 'no'} | {cost.step_us:.1f} "
            f"| {cost.write_us:.1f} | {f'{BOUND_US:.1f}' if gated else '-'} "
            f"| {('pass' if is_met(cost) else 'MISSED') if gated else '-'} |"
        )
    return "\n".join(lines)


def is_met(cost: HostCost) -> bool:
    """Whether *cost* is as small as it has to be."""
    return cost.rows != BATCHES[-1] or cost.step_us <= BOUND_US


if __name__ == "__main__":
    sys.exit(main())
