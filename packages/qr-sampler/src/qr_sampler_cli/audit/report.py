# SPDX-License-Identifier: Apache-2.0
"""The display of an audit, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import typer
from rich.text import Text

from qr_sampler_cli.audit.auditor import AuditedRun
from qr_sampler_cli.audit.findings import MOST_LISTED, Rung, Status
from qr_sampler_cli.terminal.consoles import printable, result_console

__all__ = ["as_data", "print_runs"]

_STYLES: Final[dict[Status, str]] = {
    "holds": "green",
    "cannot be said": "yellow",
    "fails": "bold red",
}


def print_runs(runs: Iterable[AuditedRun]) -> None:
    """Prints every rung of every run, with what was found on it."""
    for run in runs:
        _print_run(run)


def _print_run(run: AuditedRun) -> None:
    console = result_console()
    name = printable(run.run_id) or "without a name"
    console.print(Text(f"run {name}, version {run.version}", style="bold"), soft_wrap=True)
    for file in run.files:
        typer.echo(f"  {printable(file)}")
    typer.echo(f"  {run.lines:,} lines, {run.tokens:,} tokens")
    for rung in run.rungs:
        head = Text(f"{rung.number} {rung.name}: ", style="bold")
        head.append(rung.status, style=_STYLES[rung.status])
        if rung.status == "holds":
            head.append(f" ({rung.claim})")
        console.print(head, soft_wrap=True)
        for line in _findings(rung):
            typer.echo(f"  {printable(line)}")
    if run.head:
        typer.echo(f"head {run.head}")


def _findings(rung: Rung) -> Iterator[str]:
    for failure in rung.failures:
        yield f"fails: {failure.where + ': ' if failure.where else ''}{failure.what}"
    if rung.failed > MOST_LISTED:
        yield f"fails: {rung.failed - MOST_LISTED:,} more"
    for unsaid in rung.unsaid.values():
        where = f" (first {unsaid.where})" if unsaid.where else ""
        times = f", {unsaid.count:,} times" if unsaid.count > 1 else ""
        yield f"cannot be said: {unsaid.what}{times}{where}"
    for note in rung.notes:
        yield f"note: {note}"


def as_data(runs: Iterable[AuditedRun]) -> dict[str, Any]:
    """Returns the same as JSON-ready values."""
    told = [_run(run) for run in runs]
    statuses = {rung["status"] for run in told for rung in run["rungs"]}
    verdict: Status = "fails" if "fails" in statuses else "holds"
    if verdict == "holds" and "cannot be said" in statuses:
        verdict = "cannot be said"
    return {"verdict": verdict, "runs": told}


def _run(run: AuditedRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "schema_version": run.version,
        "files": list(run.files),
        "lines": run.lines,
        "tokens": run.tokens,
        "head": run.head,
        "rungs": [_rung(rung) for rung in run.rungs],
    }


def _rung(rung: Rung) -> dict[str, Any]:
    return {
        "rung": rung.number,
        "name": rung.name,
        "claim": rung.claim,
        "status": rung.status,
        "failed": rung.failed,
        "failures": [{"where": each.where, "what": each.what} for each in rung.failures],
        "cannot_be_said": [
            {"what": each.what, "count": each.count, "first": each.where}
            for each in rung.unsaid.values()
        ],
        "notes": rung.notes,
        **({"figures": rung.figures} if rung.figures else {}),
    }
