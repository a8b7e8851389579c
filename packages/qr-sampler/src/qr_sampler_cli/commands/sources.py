# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler sources``: what is installed, from which distribution, and whether it works."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from typing import Annotated, Final

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from qr_sampler.components.failure_policy import END_REQUEST, RAISE_ERROR
from qr_sampler.components.sources import source_names
from qr_sampler.errors import ConfigError, PluginError, UnknownPluginError, shown
from qr_sampler.settings import Settings
from qr_sampler_cli.component_test.report import announcement, findings
from qr_sampler_cli.component_test.trial import Trial, try_component
from qr_sampler_cli.failures import ExitCode, reports_errors
from qr_sampler_cli.remedies import from_clone
from qr_sampler_cli.settings.devices import NotedDevice, devices_page, noted_devices
from qr_sampler_cli.source_inspection import SourceReport, State, inspect_sources
from qr_sampler_cli.terminal.consoles import (
    printable,
    progress_console,
    result_console,
    stdout_reserved,
)

__all__ = ["sources"]

STYLES: Final[dict[State, str]] = {
    "available": "green",
    "unavailable": "yellow",
    "misconfigured": "yellow",
    "broken": "red",
    "conflict": "red",
}


CONFIGURED_MARK: Final = "*"
FALLBACK_MARK: Final = "+"

FAULTY_STATUS: Final = 1
"""Exit status when a test has found a fault."""


@reports_errors
def sources(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Sources; all if none is named.")
    ] = None,
    *,
    probe: Annotated[
        bool, typer.Option("--probe", help="Draw one byte from each source; slow for real devices.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array instead of a table.")
    ] = False,
    table: Annotated[
        bool,
        typer.Option("--table", help="Print what is known of their devices, as Markdown."),
    ] = False,
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            metavar="NAME",
            help="Test this source, amplifier or strategy as it is configured; draws.",
        ),
    ] = None,
) -> None:
    """List the installed entropy sources and whether each can be used.

    Marks the configured source (*) and the one that takes over for it (+). Exits with 2 when one
    that is named, here or by the settings, is not installed.

    With --test: runs its contract, a start-up health test and timed draws, in processes of their
    own and within its quotas, having said what that spends. Exits with 0 when it is usable, 1 when
    it is faulty, 2 when it cannot be tested.
    """
    if table:
        _print_devices()
        return
    if test is not None:
        if names or probe:
            raise ConfigError("--test takes one name and goes with --json only")
        _test(test, as_json=as_json)
        return
    settings = Settings.load()
    with stdout_reserved():
        reports = inspect_sources(settings, names or (), probe=probe)
    if as_json:
        rows = [dataclasses.asdict(report) for report in reports]
        typer.echo(json.dumps(rows, indent=2))
    elif reports:
        _print(reports)
    elif not names:
        remedy = from_clone("qr-entropy-sources")
        result_console().print(
            f"no entropy source is installed; install some {remedy}", soft_wrap=True
        )
    _refuse_unknown(names or (), settings)


def _print_devices() -> None:
    with stdout_reserved():
        found = list(noted_devices())
    for error in found:
        if isinstance(error, PluginError):
            typer.echo(f"not shown: {error}", err=True)
    typer.echo(devices_page([device for device in found if isinstance(device, NotedDevice)]))


def _test(name: str, *, as_json: bool) -> None:
    """Tests a component and prints the verdict.

    Raises:
        typer.Exit: When the component is faulty or could not be tested.
    """
    spent = progress_console()

    def announce(trial: Trial) -> None:
        for line in announcement(trial):
            spent.print(_text(line), soft_wrap=True)

    trial = try_component(name, announce)
    if as_json:
        typer.echo(json.dumps(trial.as_data(), indent=2))
    else:
        for line in findings(trial):
            typer.echo(printable(line))
    if trial.verdict != "usable":
        raise typer.Exit(FAULTY_STATUS if trial.faults else ExitCode.ERROR)


def _refuse_unknown(names: Collection[str], settings: Settings) -> None:
    """Raises for what is named and not installed, once the others have been shown.

    Raises:
        UnknownPluginError: When one of *names* is not installed.
        ConfigError: When a source of the settings is not.
    """
    installed = source_names()
    for name in names:
        if name not in installed:
            raise UnknownPluginError("entropy source", name, installed)
    if names or not installed:
        return
    variables = {"QR_ENTROPY_SOURCE_TYPE": settings.entropy_source_type}
    if settings.fallback_mode not in (END_REQUEST, RAISE_ERROR):
        variables["QR_FALLBACK_MODE"] = settings.fallback_mode
    for variable, name in variables.items():
        if name not in installed:
            unknown = UnknownPluginError("entropy source", name, installed)
            raise ConfigError(f"{variable}={shown(name)}: {unknown}")


def _print(reports: tuple[SourceReport, ...]) -> None:
    """Prints a table that fits a window of 80 columns, and remarks below it."""
    console = result_console()
    console.print(_table(reports, fancy=console.is_terminal))
    remarks = [f"{report.name}: {report.reason}" for report in reports if report.reason]
    remarks += [
        f"{report.name}: of the kind {report.kind}, with settings of its own"
        for report in reports
        if report.kind
    ]
    if any(report.configured for report in reports):
        remarks.append(f"{CONFIGURED_MARK} decides the tokens (QR_ENTROPY_SOURCE_TYPE)")
    if any(report.takes_over for report in reports):
        remarks.append(f"{FALLBACK_MARK} takes over while that is unavailable (QR_FALLBACK_MODE)")
    console.print()
    for remark in remarks:
        console.print(_text(remark), soft_wrap=not console.is_terminal)


def _table(reports: tuple[SourceReport, ...], *, fancy: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD if fancy else None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("source", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("just in time", no_wrap=True)
    for heading in ("conditioning", "distribution"):
        table.add_column(heading, overflow="fold")
    for report in reports:
        tested = f" (tested: {report.tested})" if report.tested else ""
        jit = f"{report.jit_class} ({report.jit_meaning})" if report.jit_class else "-"
        table.add_row(
            CONFIGURED_MARK if report.configured else FALLBACK_MARK * report.takes_over,
            _text(report.name),
            Text(report.state, style=STYLES[report.state]),
            _text(jit),
            _text(f"{report.conditioning or '-'}{tested}"),
            _text(f"{report.distribution or 'unknown'} {report.version}".strip()),
        )
    return table


def _text(content: str) -> Text:
    return Text(printable(content))
