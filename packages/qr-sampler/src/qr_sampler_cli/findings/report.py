# SPDX-License-Identifier: Apache-2.0
"""The display of findings: a table for each section, and a summary line."""

from __future__ import annotations

from itertools import groupby
from typing import Final

import typer
from rich.table import Table
from rich.text import Text

from qr_sampler_cli.findings.finding import LEVELS, Finding, Level
from qr_sampler_cli.terminal.consoles import printable, result_console, unpadded

__all__ = ["print_findings"]

STYLES: Final[dict[Level, str]] = {
    "ok": "green",
    "skipped": "dim",
    "warning": "yellow",
    "problem": "bold red",
}


def print_findings(findings: list[Finding]) -> None:
    """Prints *findings* by section to standard output, then the number of problems and warnings."""
    console = result_console()
    for name, group in groupby(findings, key=lambda finding: finding.section):
        console.print(Text(name, style="bold"))
        typer.echo(unpadded(console, _table(list(group))))
    console.print(_summary(findings), soft_wrap=True)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(width=max(map(len, LEVELS)) + 2)
    table.add_column(width=20, overflow="fold")
    table.add_column(overflow="fold", ratio=1)
    for finding in findings:
        message = Text(printable(finding.found))
        if finding.remedy:
            message.append(f"\n-> {printable(finding.remedy)}", style="italic")
        table.add_row(
            Text(f"  {finding.level}", style=STYLES[finding.level]),
            Text(printable(finding.check)),
            message,
        )
    return table


def _summary(findings: list[Finding]) -> str:
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    problems = f"{counts['problem'] or 'no'} problem{'s' * (counts['problem'] != 1)}"
    warnings = f"{counts['warning'] or 'no'} warning{'s' * (counts['warning'] != 1)}"
    return f"{problems}, {warnings}"
