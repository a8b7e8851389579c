# SPDX-License-Identifier: Apache-2.0
"""Everything that was measured, as the text of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import page
from benchmarks.accelerator import HEADER
from benchmarks.gates import Outcome
from benchmarks.logit_sets import LogitSet, entropy_range
from benchmarks.machine import describe_machine
from benchmarks.scaling import Line

__all__ = ["Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of one run."""

    rounds: int
    """Number of rounds of each comparison."""
    sets: Sequence[LogitSet]
    """The logits."""
    outcomes: Sequence[Outcome]
    """What was found for each gate."""
    row_us: Mapping[tuple[str, int], float]
    """By contender and batch size: microseconds per row."""
    exactness_cases: int
    """Number of cases on which selectors were compared."""
    lines: Sequence[Line]
    """How the cost grows."""
    accelerator: Sequence[Sequence[str]]
    """Rows of a table with the columns HEADER; none without a CUDA device."""

    @property
    def text(self) -> str:
        """The generated part of the page."""
        return "\n\n".join(
            [
                _list(self._facts()),
                page.gate_table(self.outcomes),
                f"Exactness was judged on {self.exactness_cases:,} cases.",
                page.row_table(self.row_us),
                f"![Duration of a step over vocabulary and batch]({page.PLOT})",
                _list([_described(line) for line in self.lines]),
                page.table(HEADER, self.accelerator)
                if self.accelerator
                else f"CUDA: {page.NO_ACCELERATOR}.",
            ]
        )

    def _facts(self) -> list[str]:
        ranges = [(each.name, *entropy_range(each.rows)) for each in self.sets]
        return [
            *describe_machine(),
            f"{self.rounds} rounds, one thread",
            *(
                f"logits: {name}, entropy {low:.2f} to {high:.2f} nats"
                for name, low, high in ranges
            ),
        ]


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _described(line: Line) -> str:
    intercept, slope = line.fit
    amount, unit = line.unit
    return (
        f"Over {line.label}: {intercept:,.0f} µs and {amount * slope:,.1f} µs for every {unit}; "
        f"largest deviation from the line {line.largest_deviation:.0%}."
    )
