# SPDX-License-Identifier: Apache-2.0
"""The generated part of ``docs/benchmarks.md``. Imports neither torch nor vLLM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.gates import BATCHES, PLAIN_BATCH, Outcome

__all__ = ["BEGIN", "END", "NO_ACCELERATOR", "PLOT", "gate_table", "row_table", "table", "update"]

BEGIN: Final = "<!-- begin: written by `uv run nox -s bench -- --write` -->"
END: Final = "<!-- end -->"
PLOT: Final = "benchmarks-scaling.svg"
NO_ACCELERATOR: Final = "skipped: no CUDA device"

CONTENDERS: Final[Mapping[str, str]] = {
    "fixed_1": "plugin, fixed temperature 1",
    "fixed_07": "plugin, fixed temperature 0.7",
    "edt": "plugin, `edt`",
    "filtered": "plugin, `top_k=50`, `top_p=0.9`",
    "numpy": "plugin, fixed temperature 1, in NumPy alone",
    "numpy_bare": "the same without the statistics",
    "tail": "plugin, u = 1 - 1e-10",
    "flat": "plugin, flat logits",
    "grpc": "plugin, `edt`, one draw over gRPC",
    "amplify": "of which amplification",
    "native": "vLLM, no filter",
    "native_top_k": "vLLM, `top_k=50`",
    "native_top_p": "vLLM, `top_p=0.9`",
    "native_filtered": "vLLM, `top_k=50`, `top_p=0.9`",
    "native_forced": "vLLM, drawing from forced rows (spared in an engine)",
    "naive": "naive NumPy: softmax, argsort, cumsum",
    "reference": "plugin with the readable selector",
    "floor": "memory floor: read, exp, write",
}
"""The rows of the second table."""


def gate_table(outcomes: Iterable[Outcome]) -> str:
    """Returns the table of what was demanded and what was found."""
    rows = [
        (
            outcome.gate.claim.what,
            outcome.gate.claim.against or "-",
            "-" if outcome.gate.batch == PLAIN_BATCH else str(outcome.gate.batch),
            _number(max(outcome.values), outcome.gate.bound),
            _number(min(outcome.values), outcome.gate.bound),
            _number(outcome.gate.bound, outcome.gate.bound),
            "pass" if outcome.passed else "MISSED",
        )
        for outcome in outcomes
    ]
    return table(
        ("measured", "divided by", "rows", "worst set", "best set", "gate", "verdict"), rows
    )


def row_table(row_us: Mapping[tuple[str, int], float]) -> str:
    """Returns the table of microseconds per row."""
    rows = [
        (
            label,
            *(f"{row_us[key, each]:,.0f}" if (key, each) in row_us else "-" for each in BATCHES),
        )
        for key, label in CONTENDERS.items()
    ]
    return table(("µs per row", *(f"B = {size}" for size in BATCHES)), rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def update(page: Path, text: str) -> None:
    """Replaces what stands between the markers of *page*.

    Raises:
        ValueError: When the page does not have both markers, in order.
    """
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page.name} lacks the lines {BEGIN!r} and {END!r}; put them back")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


def _number(value: float, bound: float) -> str:
    """Returns counts as whole numbers, and ratios so that a small bound has enough digits."""
    if bound == 0.0:
        return f"{value:,.0f}"
    return f"{value:.3f}" if bound < 0.1 else f"{value:.2f}"
