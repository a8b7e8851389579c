# SPDX-License-Identifier: Apache-2.0
"""Results of ``qr-sampler tsd`` as tables and as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from qr_sampler_cli.terminal.consoles import printable

if TYPE_CHECKING:
    from qr_sampler_tsd.experiments import ExperimentResult
    from qr_sampler_tsd.gate import GateReport

__all__ = ["as_data", "gate_table", "refuted", "result_table", "untested"]

LEAST_P_VALUE: Final = 1e-9
"""A chi-square below refutes that the text follows the target."""

LARGEST_Z: Final = 6.2
"""Standard deviations, 6e-10 on both sides together, beyond which the acceptance is refuted."""

_COLUMNS: Final = (
    "mode",
    "V",
    "K",
    "tau",
    "L",
    "verifier",
    "accepted [99.9 %]",
    "predicted",
    "z",
    "chi-square / df",
    "p",
    "CE gap",
    "tokens/pass",
    "psi bytes",
    "steps/s",
    "x dense",
)


def result_table(results: Sequence[ExperimentResult], *, fancy: bool) -> Table:
    """Returns a table with one row per result.

    Args:
        results: Of experiments.
        fancy: Draw lines; leave them out where output is not a terminal.
    """
    table = _table(_COLUMNS, fancy)
    for result in results:
        table.add_row(*map(Text, _cells(result)))
    return table


def _cells(result: ExperimentResult) -> tuple[str, ...]:
    low, high = result.accept_interval
    test = result.chi_square
    return (
        result.mode,
        f"{result.vocab_size:,}",
        str(result.k),
        f"{result.tau:g}",
        str(result.length),
        result.verifier,
        f"{result.accept_rate:.4f} [{low:.4f}, {high:.4f}]",
        f"{result.predicted_acceptance:.4f}",
        f"{_largest_z(result):+.2f}",
        f"{test.statistic:.1f} / {test.degrees}",
        _number(test.p_value, ".3g"),
        f"{result.ce_gap_nats:.4f}",
        f"{result.tokens_per_pass:.3f}",
        f"{result.psi_bytes:.0f}",
        f"{result.steps_per_second:,.0f}",
        _number(result.speed_ratio, ",.1f"),
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def refuted(result: ExperimentResult) -> tuple[str, ...]:
    """Returns in words every deviation that is too large to be due to chance."""
    where, p_value, z = _where(result), result.chi_square.p_value, _largest_z(result)
    reasons = []
    if p_value is not None and p_value < LEAST_P_VALUE:
        reasons.append(f"{where}: the text does not follow the target, p = {p_value:.2g}")
    if not abs(z) < LARGEST_Z:
        reasons.append(
            f"{where}: the acceptance is {z:+.1f} standard deviations off what is predicted"
        )
    return tuple(reasons)


def untested(result: ExperimentResult) -> tuple[str, ...]:
    """Returns in words what the run was too short, or its target too certain, to test."""
    if result.chi_square.p_value is not None:
        return ()
    too_little = f"{result.tokens:,} tokens are too few to compare with the target, or it leaves"
    return (f"{_where(result)}: {too_little} nothing to chance; give more --steps",)


def _where(result: ExperimentResult) -> str:
    return f"{result.mode}, V = {result.vocab_size:,}, K = {result.k}, seed {result.seed}"


def _largest_z(result: ExperimentResult) -> float:
    """Returns the greatest deviation of the acceptance; blocks have one for every prefix."""
    return max((result.accept_z, *result.prefix_z), key=abs)


def gate_table(report: GateReport, *, fancy: bool) -> Table:
    """Returns a table with one row per golden payload.

    Args:
        report: Of the gate.
        fancy: Draw lines; leave them out where output is not a terminal.
    """
    tests = tuple(report.results[0].p_values)
    headings = ("payload", *(f"p {test}" for test in tests), "TV", "TV allowed", "outcome")
    table = _table(headings, fancy)
    for result in report.results:
        bound = result.sampling_floor + result.allowance
        cells = (
            result.payload,
            *(f"{result.p_values[test]:.3g}" for test in tests),
            f"{result.total_variation:.5f}",
            f"{bound:.5f}",
            printable("; ".join(result.failures)) or "passed",
        )
        table.add_row(*map(Text, cells))
    return table


def _table(headings: Sequence[str], fancy: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD if fancy else None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def as_data(report: ExperimentResult | GateReport) -> dict[str, Any]:
    """Returns every field and what follows from them, for JSON; what is not finite is ``None``."""
    data: dict[str, Any] = _plain(
        {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    )
    for name in ("speed_ratio", "acceptance_agrees", "passed"):
        if hasattr(report, name):
            data[name] = _plain(getattr(report, name))
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_data(value)  # type: ignore[arg-type]
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value
