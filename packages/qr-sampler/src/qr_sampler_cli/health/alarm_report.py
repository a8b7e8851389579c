# SPDX-License-Identifier: Apache-2.0
"""What ``health show`` prints."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from qr_sampler_cli.health.alarms import UNKNOWN, HealthHistory, LedgerAlarm
from qr_sampler_cli.terminal.consoles import printable, result_console, unpadded

__all__ = ["as_data", "print_history"]


def as_data(history: HealthHistory) -> dict[str, Any]:
    """Returns a history as JSON-ready values."""
    return {
        "sources": {name: dataclasses.asdict(each) for name, each in history.sources.items()},
        "alarms": [dataclasses.asdict(alarm) for alarm in history.alarms],
        "alarm_count": history.count,
        "unreadable_lines": history.unreadable,
    }


def print_history(history: HealthHistory) -> None:
    """Prints a history to standard output: the sources, every alarm, and a last line of words."""
    console = result_console()
    if history.sources:
        typer.echo(unpadded(console, _sources(history)))
    if history.alarms:
        typer.echo(unpadded(console, _alarms(history.alarms)))
    if history.count > len(history.alarms):
        typer.echo(f"and {history.count - len(history.alarms):,} more alarms")
    if history.unreadable:
        typer.echo(f"{history.unreadable:,} lines could not be read; see 'qr-sampler audit'")
    if unknown := sum(each.draws[UNKNOWN] for each in history.sources.values()):
        typer.echo(f"what the tests said of {unknown:,} draws is in words of another version")
    typer.echo(_summary(history))


def _summary(history: HealthHistory) -> str:
    if history.count:
        suspect = sum(each.draws["suspect"] for each in history.sources.values())
        failed = history.count - suspect
        return f"{history.count:,} alarms: {suspect:,} suspect draws, {failed:,} failures"
    tested = sum(each.draws["ok"] for each in history.sources.values())
    if not tested:
        return "no alarm, but no draw was tested either"
    return f"no alarm in {tested:,} tested draws"


def _sources(history: HealthHistory) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("source")
    for heading in (
        "ok",
        "suspect",
        "untested",
        UNKNOWN,
        "failures",
        "start-up tests",
        "suspect tokens",
        "replaced draws",
    ):
        table.add_column(heading, justify="right")
    for name, each in sorted(history.sources.items()):
        startup = f"{each.startup_draws:,} ({each.startup_bytes:,} bytes)"
        counts = (*each.draws.values(), each.failures)
        table.add_row(
            Text(printable(name)),
            *(f"{count:,}" for count in counts),
            startup if each.startup_draws else "0",
            f"{each.suspect_tokens:,}",
            f"{each.replaced:,}",
        )
    return table


def _alarms(alarms: list[LedgerAlarm]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("time (UTC)", "source", "state", "draw", "bytes", "line", "reason"):
        table.add_column(heading, justify="right" if heading in ("draw", "bytes") else "left")
    for alarm in alarms:
        table.add_row(
            _time(alarm.wall_time_ns),
            Text(printable(alarm.source)),
            Text(alarm.state, style="bold red" if alarm.state == "failed" else "yellow"),
            "" if alarm.draw is None else str(alarm.draw),
            f"{alarm.bytes:,}",
            Text(printable(f"{alarm.file}:{alarm.line}")),
            Text(printable(alarm.reason)),
        )
    return table


def _time(wall_time_ns: int | None) -> str:
    if wall_time_ns is None:
        return ""
    try:
        moment = datetime.fromtimestamp(wall_time_ns / 1e9, timezone.utc)
    except (OverflowError, OSError, ValueError):
        # A line may say anything.
        return ""
    return moment.strftime("%Y-%m-%d %H:%M:%S")
