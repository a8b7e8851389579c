# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler health``: whether a source delivers what a good one could, now and in a ledger."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from qr_sampler import EntropySource, create_source
from qr_sampler.components.failure_policy import health_options
from qr_sampler.errors import ConfigError
from qr_sampler.health import HealthMonitor, HealthPolicy, HealthState, assumed_min_entropy
from qr_sampler.settings import Settings
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.health.alarm_report import as_data, print_history
from qr_sampler_cli.health.alarms import history_of
from qr_sampler_cli.health.examination import HealthExamination
from qr_sampler_cli.terminal.consoles import printable, result_console, stdout_reserved, unpadded
from qr_sampler_cli.terminal.progress import counting_bar

__all__ = ["health"]

FAILED_STATUS: Final = 1
"""Exit status when the source fails a test, or a ledger holds an alarm."""

STYLES: Final = {
    HealthState.OK: "green",
    HealthState.SUSPECT: "yellow",
    HealthState.FAILED: "bold red",
}

health = typer.Typer(no_args_is_help=True, help="Test whether a source is or was broken.")


@health.callback()
def _group() -> None:
    """Test whether a source is broken, or look up what a ledger says of its sources."""


@health.command()
@reports_errors
def run(
    source: Annotated[
        str | None,
        typer.Argument(help="Entropy source; QR_ENTROPY_SOURCE_TYPE if not given."),
    ] = None,
    *,
    draws: Annotated[int, typer.Option(min=1, help="Draws to test.")] = 100,
    block_bytes: Annotated[
        int | None,
        typer.Option(min=1, help="Bytes per draw; QR_SAMPLE_COUNT by default."),
    ] = None,
    min_entropy: Annotated[
        float | None,
        typer.Option(
            help="Min-entropy of a byte in bits that the source is assumed to have: 8 for "
            "conditioned output, 6 for raw bytes. By default QR_HEALTH_MIN_ENTROPY, else what the "
            "source says of itself."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Draw from a source and look for what no good source shows.

    Finds dead, stuck and counting devices, bytes that come again, and text in place of bytes. What
    experiments look for, such as one bit in a thousand, trips nothing. On conditioned output the
    tests find a dead pipe and no more. Whatever min-entropy is assumed, a source fails if bits of
    one place are ones in less than 47 % or more than 53 %, beyond chance, or 16 bytes come again.
    Exits with 1 when the source fails a test.
    """
    settings = Settings.load()
    name = settings.entropy_source_type if source is None else source
    size = settings.sample_count if block_bytes is None else block_bytes
    with stdout_reserved(), contextlib.closing(create_source(name)) as device:
        conditioning = printable(device.conditioning)
        policy = _policy(min_entropy, device, settings)
        examination = HealthExamination(device, HealthMonitor(policy), size)
        with counting_bar(f"testing {printable(name)}", unit="draws") as progress:
            examination.run(draws, progress)
    if as_json:
        typer.echo(json.dumps(_as_data(name, conditioning, policy, examination), indent=2))
    else:
        _print(name, conditioning, policy, size, examination)
    if examination.failure:
        raise typer.Exit(FAILED_STATUS)


@health.command()
@reports_errors
def show(
    ledgers: Annotated[
        list[Path],
        typer.Argument(metavar="LEDGER...", help="Ledger files, or directories that hold them."),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """List every alarm in a ledger with its draw, and the start-up tests, source by source.

    Exits with 0 when there is no alarm, with 1 when there are some: draws whose bytes decided
    tokens although they were suspect, and bytes that were refused because the source had failed.
    Lines are taken at their word; 'qr-sampler audit' says what that is worth.
    """
    files = [file.path for run_files in ledgers_of(ledgers) for file in run_files]
    history = history_of(files)
    if as_json:
        typer.echo(json.dumps(as_data(history), indent=2))
    else:
        print_history(history)
    if history.count:
        raise typer.Exit(FAILED_STATUS)


def _policy(asked: float | None, device: EntropySource, settings: Settings) -> HealthPolicy:
    """Returns what is assumed of *device*, which is tested even where a deployment does not."""
    options = dataclasses.replace(health_options(settings), enabled=True)
    if asked is None and (policy := options.assumption(device).policy):
        return policy
    min_entropy = assumed_min_entropy(device.conditioning) if asked is None else asked
    try:
        return HealthPolicy(min_entropy=min_entropy)
    except ValueError as error:
        raise ConfigError(f"--min-entropy: {error}") from None


def _as_data(
    name: str, conditioning: str, policy: HealthPolicy, examination: HealthExamination
) -> dict[str, Any]:
    failure = examination.failure
    return {
        "source": name,
        "conditioning": conditioning,
        "min_entropy": policy.min_entropy,
        "draws": examination.draws,
        "failed": None if failure is None else str(failure),
        "tests": [
            {**dataclasses.asdict(test), "state": test.state.value}
            for test in examination.tests.values()
        ],
    }


def _print(
    name: str,
    conditioning: str,
    policy: HealthPolicy,
    size: int,
    examination: HealthExamination,
) -> None:
    console = result_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("test", "largest", "suspect from", "failed from", "result"):
        table.add_column(heading, justify="left" if heading in ("test", "result") else "right")
    for test in examination.tests.values():
        figures = (f"{figure:.4g}" for figure in (test.largest, test.suspect, test.failed))
        table.add_row(test.test, *figures, Text(test.state.value, style=STYLES[test.state]))
    console.print(
        f"{printable(name)}: {examination.draws:,} draws of {size:,} bytes, assumed min-entropy "
        f"{policy.min_entropy:g} bits a byte, conditioning {conditioning}",
        soft_wrap=True,
        highlight=False,
    )
    typer.echo(unpadded(console, table))
    failure = examination.failure
    verdict = "no test failed" if failure is None else f"failed: {failure}"
    console.print(verdict, soft_wrap=True, highlight=False)
