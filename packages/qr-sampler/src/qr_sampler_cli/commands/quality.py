# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler quality``: what the bytes of a source or a file are worth."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler.components.sources import source_names
from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.generation.records_file import check_destination
from qr_sampler_cli.quality.byte_tests import FEWEST_BYTES
from qr_sampler_cli.quality.display import print_report
from qr_sampler_cli.quality.picture import draw_picture
from qr_sampler_cli.quality.programs.known import PROGRAMS
from qr_sampler_cli.quality.programs.program import asked
from qr_sampler_cli.quality.report import quality_report
from qr_sampler_cli.quality.sample import RESTART_BYTES, Sample, draw_sample, read_sample
from qr_sampler_cli.terminal.consoles import printable, stdout_reserved
from qr_sampler_cli.terminal.progress import counting_bar, stage

__all__ = ["quality"]

FOUND_STATUS: Final = 1
"""Exit status when something speaks against uniform and independent bytes."""

DEFAULT_BYTES: Final = 2**20
"""As many as NIST SP 800-90B asks for, and a few more."""

MOST_BYTES: Final = 2**28
"""Bytes of the largest sample, which is held in memory several times over."""


@reports_errors
def quality(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE|FILE",
            help="Entropy source, see 'qr-sampler sources', or a file of bytes; a name without a "
            "slash that is both is the source.",
        ),
    ],
    *,
    size: Annotated[
        int | None,
        typer.Option(
            "--bytes",
            min=FEWEST_BYTES,
            max=MOST_BYTES,
            help=f"Bytes to examine; by default {DEFAULT_BYTES:,} of a source, and the whole file.",
        ),
    ] = None,
    restarts: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000,
            help=f"How often the source is closed and opened anew, {RESTART_BYTES:,} bytes each.",
        ),
    ] = 20,
    programs: Annotated[
        str | None,
        typer.Option(
            help="Programs of others to run, separated by commas, empty for none; all that are "
            f"installed by default: {', '.join(each.executable for each in PROGRAMS)}."
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=1.0, help="Longest time of each of these programs, in seconds.")
    ] = 300.0,
    keep: Annotated[
        Path | None, typer.Option(help="New file for the bytes, readable by its owner only.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="New file for a picture (.svg, .png, .pdf); needs matplotlib."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Say what the bytes of a source or a file are worth, and what that was not a test of.

    Min-entropy by two estimators of NIST SP 800-90B, the figures of ent, tests of histogram, bits,
    order, spectrum and restarts, and the programs of others that are installed; all p-values are
    corrected together. There is no fallback, and quotas are respected. Exits with 1 when something
    speaks against uniform and independent bytes, which is no fault in a raw device.
    """
    wanted = _wanted(programs)
    for path in (keep, picture):
        if path is not None:
            _check_new(path)
    with stdout_reserved():
        sample = _sample(source, size, restarts)
        if keep is not None:
            _keep(sample.data, keep)
        with stage("running the programs of others"):
            told = asked(PROGRAMS, sample.data, time_limit, wanted)
        report = quality_report(sample, told)
        if picture is not None:
            draw_picture(report, picture)
    if as_json:
        typer.echo(json.dumps(report.as_data(), indent=2, allow_nan=False))
    else:
        print_report(report)
    if report.found:
        raise typer.Exit(FOUND_STATUS)


def _sample(name: str, size: int | None, restarts: int) -> Sample:
    if name not in source_names() and os.path.lexists(name):
        return read_sample(Path(name), size or MOST_BYTES)
    with counting_bar(f"drawing from {printable(name)}", unit="bytes") as progress:
        return draw_sample(
            name,
            size=size or DEFAULT_BYTES,
            draw_bytes=Settings.load().sample_count,
            restarts=restarts,
            progress=progress,
        )


def _wanted(programs: str | None) -> frozenset[str] | None:
    if programs is None:
        return None
    names = frozenset(name.strip() for name in programs.split(",") if name.strip())
    known = frozenset(program.executable for program in PROGRAMS)
    if unknown := names - known:
        raise ConfigError(
            f"--programs names {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
        )
    return names


def _check_new(path: Path) -> None:
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists; choose another file")
    check_destination(path)


def _keep(data: bytes, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error}; choose a new file") from error
