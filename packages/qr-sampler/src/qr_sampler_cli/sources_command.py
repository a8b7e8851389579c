# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler sources``: what is installed, from which distribution, and whether it works."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qr_sampler_cli.consoles import printable, result_console, stdout_reserved
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.remedies import from_clone
from qr_sampler_cli.source_inspection import SourceReport, State, inspect_sources

__all__ = ["sources"]

STYLES: Final[dict[State, str]] = {
    "available": "green",
    "unavailable": "yellow",
    "misconfigured": "yellow",
    "broken": "red",
    "conflict": "red",
}


@reports_errors
def sources(
    probe: Annotated[
        bool, typer.Option("--probe", help="Draw one byte from each source; slow for real devices.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array instead of a table.")
    ] = False,
) -> None:
    """List the installed entropy sources and whether each can be used."""
    with stdout_reserved():
        reports = inspect_sources(probe=probe)
    if as_json:
        rows = [dataclasses.asdict(report) for report in reports]
        typer.echo(json.dumps(rows, indent=2))
        return
    console = result_console()
    if reports:
        console.print(_table(reports, console))
    else:
        remedy = from_clone("qr-entropy-sources")
        console.print(f"no entropy source is installed; install some {remedy}", soft_wrap=True)


def _table(reports: tuple[SourceReport, ...], console: Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for heading in ("source", "distribution", "just in time", "conditioning", "state"):
        table.add_column(heading, overflow="fold")
    table.add_column("reason", overflow="fold", ratio=1)
    for report in reports:
        jit = f"{report.jit_class} ({report.jit_meaning})" if report.jit_class else "-"
        table.add_row(
            _text(report.name),
            _text(f"{report.distribution or 'unknown'} {report.version}".strip()),
            _text(jit),
            _text(report.conditioning or "-"),
            Text(report.state, style=STYLES[report.state]),
            _text(report.reason),
        )
    return table


def _text(content: str) -> Text:
    return Text(printable(content))
