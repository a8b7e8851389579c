# SPDX-License-Identifier: Apache-2.0
"""A report as tables: every test, every arm, and the numbers of every figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from qr_sampler_lab.report.content import Figure, Report
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.tables.files import open_new

__all__ = ["as_data", "write_tables"]

_TESTS: Final = (
    *("section", "arm", "test", "about", "statistic", "p_value", "p_holm", "q_bh", "n", "effect"),
    *("effect_name", "low", "high", "exploratory", "notes"),
)
_Table: TypeAlias = tuple[str, Sequence[str], list[list[Any]]]
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""With what a spreadsheet takes a text for a formula."""


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Writes a report into a directory and returns the files.

    Raises:
        TablesError: When it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tables: list[_Table] = [("tests", _TESTS, list(_tests(report)))]
        if report.arms:
            names = tuple(report.arms[0])
            tables.append(("arms", names, [[arm[name] for name in names] for arm in report.arms]))
        tables += [_of_figure(figure) for figure in report.figures]
        return [_write(folder / f"{name}.csv", head, rows) for name, head, rows in tables]
    except OSError as error:
        raise TablesError(f"{folder} cannot be written: {error.strerror}") from error


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    part = path.with_name(f".{path.name}.part")
    with open_new(part) as file:
        file.write(text.getvalue().encode())
    part.replace(path)
    return path


def _cell(value: Any) -> Any:
    """Returns a value; a text that a spreadsheet would compute gets an apostrophe."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value


def _tests(report: Report) -> Iterator[list[Any]]:
    for section in (report.primary, *report.sections):
        for row in section.rows:
            result, interval = row.result, row.result.interval
            yield [
                section.title,
                row.who,
                result.name,
                result.about,
                result.statistic,
                result.p_value,
                row.adjusted,
                row.discovery_rate,
                result.n,
                result.effect,
                result.effect_name,
                "" if interval is None else interval.low,
                "" if interval is None else interval.high,
                result.exploratory,
                " ".join(result.notes),
            ]


def _of_figure(figure: Figure) -> _Table:
    columns = tuple(dict.fromkeys(name for each in figure.series for name in each.columns))
    rows = []
    for series in figure.series:
        told = {name: column.tolist() for name, column in series.columns.items()}
        for index in range(len(next(iter(told.values())))):
            name = figure.labels[index] if figure.labels else series.name
            rows.append([name, *(told[each][index] if each in told else "" for each in columns)])
    return figure.name, ("series", *columns), rows


def as_data(report: Report) -> dict[str, Any]:
    """Returns a report as JSON-ready values, without its figures; no number is infinite or NaN."""
    return {
        "title": report.title,
        "stamps": report.stamps,
        "settings": report.settings,
        "ledgers": report.ledgers,
        "arms": [{name: _number(value) for name, value in arm.items()} for arm in report.arms],
        "tests": [
            {name: _number(value) for name, value in zip(_TESTS, row, strict=True)}
            for row in _tests(report)
        ],
    }


def _number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
