# SPDX-License-Identifier: Apache-2.0
"""A report on the terminal: one page, the primary comparison first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from rich.table import Table
from rich.text import Text

from qr_sampler_cli.terminal.consoles import result_console
from qr_sampler_lab.report.content import Report, Row, Section
from qr_sampler_lab.report.showing import words

__all__ = ["print_report"]

MOST_ROWS: Final = 12
"""Tests of a section that are shown, those with the smallest p-values first; files have all."""

MOST_NOTES: Final = 4
"""Reasons for which tests of a section have no p-value that are shown."""


def print_report(report: Report) -> None:
    """Prints a report."""
    console = result_console()
    console.print(Text(report.title, style="bold"))
    for stamp in report.stamps:
        style = "bold red" if stamp.startswith("NOT ADMITTED") else "yellow"
        console.print(Text(words.shown(stamp), style=style), soft_wrap=True)
    console.print()
    console.print(Text(report.primary.title, style="bold"))
    console.print(_tests(report.primary.rows))
    for note in dict.fromkeys(note for row in report.primary.rows for note in row.result.notes):
        console.print(Text(f"  {words.shown(note)}", style="dim"))
    console.print()
    console.print(_arms(report))
    for section in report.sections:
        _print_section(section)
    for ledger in report.ledgers:
        run = words.shown(ledger.get("run", "(alias)"))
        console.print(f"run {run}, head {words.shown(ledger.get('head', ''))}", soft_wrap=True)


def _print_section(section: Section) -> None:
    console = result_console()
    console.print()
    console.print(Text(section.title, style="bold"))
    rows = sorted(section.rows, key=lambda row: row.adjusted if row.adjusted >= 0.0 else 2.0)
    console.print(_tests(rows[:MOST_ROWS]))
    unsaid = [row.result.notes for row in section.rows if not math.isfinite(row.result.p_value)]
    for note in list(dict.fromkeys(notes[-1] for notes in unsaid if notes))[:MOST_NOTES]:
        console.print(Text(f"  {words.shown(note)}", style="dim"))
    if len(rows) > MOST_ROWS:
        console.print(f"  and {len(rows) - MOST_ROWS} more: --csv or --html has them", style="dim")


def _tests(rows: Iterable[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("arm", "test"):
        table.add_column(name, overflow="fold")
    for name in ("statistic", "effect", "95 % interval", "p", "p (Holm)", "q (BH)"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        result = row.result
        table.add_row(
            Text(words.shown(row.who)),
            words.test_name(result),
            words.figure(result.statistic),
            words.figure(result.effect),
            words.interval(result.interval),
            Text(words.p_value(result.p_value), style=_style(row.adjusted)),
            Text(words.p_value(row.adjusted), style=_style(row.adjusted)),
            words.p_value(row.discovery_rate),
        )
    return table


def _style(p_value: float) -> str:
    return "bold" if p_value < 0.01 else ""


def _arms(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("arm", overflow="fold")
    for name in ("tokens", "fallback", "suspect", "mean u", "mean statistic", "latency, median"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in report.arms:
        table.add_row(
            Text(words.shown(arm["name"])),
            f"{arm['tokens']:,}",
            f"{arm['fallback']:,}",
            f"{arm['suspect']:,}",
            f"{arm['mean_u']:.5f}",
            words.figure(arm["mean_statistic"]),
            words.milliseconds(arm["latency_ms_median"]),
        )
    return table
