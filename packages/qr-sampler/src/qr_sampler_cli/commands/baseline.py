# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler baseline``: the behaviour of a device at rest, frozen in a file."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler import create_source
from qr_sampler.amplification import Baseline
from qr_sampler.entropy import EntropySource
from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler_cli.baseline.advice import next_step, warning_before
from qr_sampler_cli.baseline.pace import Pace
from qr_sampler_cli.baseline.run import BaselineRun
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.generation.records_file import check_destination
from qr_sampler_cli.terminal.consoles import printable, stdout_reserved
from qr_sampler_cli.terminal.durations import duration
from qr_sampler_cli.terminal.progress import counting_bar, remark

__all__ = ["baseline"]

DEFAULT_BLOCKS: Final = 40_000
"""Enough for every amplifier that uses a baseline, with the default block length, to be admitted
under the default ``QR_MAX_KS_DISTANCE``: ``ecdf``, which needs most, loses 0.87 / sqrt(N)."""


@reports_errors
def baseline(
    *,
    output: Annotated[Path, typer.Option(help="New file for the baseline.")],
    source: Annotated[
        str | None,
        typer.Option(
            help="Entropy source, see 'qr-sampler sources'; QR_ENTROPY_SOURCE_TYPE if not given."
        ),
    ] = None,
    blocks: Annotated[
        int,
        typer.Option(
            min=2, help="Blocks to measure, one draw each; the error is about 0.57 / sqrt(blocks)."
        ),
    ] = DEFAULT_BLOCKS,
    block_bytes: Annotated[
        int | None,
        typer.Option(min=1, help="Bytes per block, those of the run; QR_SAMPLE_COUNT by default."),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Minutes without a block before giving up on a failing source; 0 gives up at "
            "the first failure. Waiting for a quota to recover does not count.",
        ),
    ] = 10.0,
) -> None:
    """Measure the bytes of an entropy source and freeze their figures for the amplifiers.

    Only the source itself is measured: there is no fallback. Failed draws are repeated and quotas
    respected. If the command is interrupted, its measurements are kept in a file beside OUTPUT,
    from which the same command resumes.
    """
    if os.path.lexists(output):
        raise ConfigError(f"{output} exists; a baseline is frozen, so choose another file")
    check_destination(output)
    settings = Settings.load()
    name = settings.entropy_source_type if source is None else source
    size = settings.sample_count if block_bytes is None else block_bytes
    with stdout_reserved(), contextlib.closing(create_source(name)) as device:
        measured = _measured(device, output, blocks, size, patience * 60.0, settings)
    typer.echo(printable(_described(measured, settings.max_ks_distance)))
    typer.echo(printable(next_step(measured, output)))


def _measured(
    device: EntropySource,
    output: Path,
    blocks: int,
    block_bytes: int,
    patience_s: float,
    settings: Settings,
) -> Baseline:
    kept = output.with_name(f"{output.name}.partial")
    run = BaselineRun(device, kept, block_bytes=block_bytes, patience_s=patience_s, tell=remark)
    _announce(device, run, blocks, block_bytes)
    if early := warning_before(blocks, block_bytes, settings.max_ks_distance):
        remark(early)
    with counting_bar(
        f"measuring {printable(device.name)}", unit="blocks", initial=run.measurement.blocks
    ) as progress:
        run.measure(blocks, progress)
    if run.failures:
        remark(f"{run.failures:,} draws failed and were repeated")
    measured = run.measurement.baseline()
    measured.save(output)
    kept.unlink(missing_ok=True)
    return measured


def _announce(device: EntropySource, run: BaselineRun, blocks: int, block_bytes: int) -> None:
    """Announces what the measurement will cost, before it costs anything."""
    begun = run.measurement.blocks
    if begun:
        remark(f"resuming after {begun:,} blocks that an earlier run has kept")
    left = max(0, blocks - begun)
    pace = Pace(device.limits, block_bytes, time.monotonic)
    remark(
        f"{left:,} blocks of {block_bytes:,} bytes will be drawn: {left * block_bytes:,} bytes in "
        f"{left * pace.requests_per_draw:,} requests"
    )
    shortest_s = pace.shortest_s(left)
    if shortest_s >= 1.0:
        remark(f"with the quotas of {device.name} that takes at least {duration(shortest_s)}")


def _described(measured: Baseline, allowed: float) -> str:
    origin = f"{measured.source_distribution} {measured.source_version}".strip()
    error = measured.calibration_error(measured.block_bytes)
    lines = {
        "source": f"{measured.source} ({origin or 'unknown distribution'})",
        "blocks": f"{measured.blocks:,} of {measured.block_bytes:,} bytes",
        "byte mean": f"{measured.byte_mean:.6f} (ideal 127.5)",
        "byte sd": f"{measured.byte_std:.6f} (ideal 73.900271)",
        "ones": f"{measured.ones_fraction:.8f} (ideal 0.5)",
        "byte correlation factor": f"{measured.byte_correlation_factor:.4f} (ideal 1)",
        "bit correlation factor": f"{measured.bit_correlation_factor:.4f} (ideal 1)",
        "calibration error": f"{error:.2g} (QR_MAX_KS_DISTANCE is {allowed:g})",
        "error of the mean of u": f"sqrt((1/N + 1/{measured.blocks:,}) / 12) for N tokens",
    }
    aligned = [f"{label:<24}{value}" for label, value in lines.items()]
    # Too long to be aligned with the others in a window of 80 columns.
    return "\n".join([*aligned, f"digest {measured.digest}"])
