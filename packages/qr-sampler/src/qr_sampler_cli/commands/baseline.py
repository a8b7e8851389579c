# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler baseline``: the behaviour of a device at rest, frozen in a file and compared."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler import create_source
from qr_sampler.amplification import Baseline, BaselineMeasurement
from qr_sampler.entropy import EntropySource
from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler_cli.baseline.advice import next_step, warning_before
from qr_sampler_cli.baseline.check_report import print_check
from qr_sampler_cli.baseline.comparison import compared, described_differences
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

FEWEST_CHECKED: Final = 1_000
"""Blocks that a check measures at least, if the baseline has as many."""

FEWEST_COMPARED: Final = 100
"""Blocks on either side below which normal laws would call too many good devices changed."""

CHANGED_STATUS: Final = 1
"""Exit status when a check finds a change."""


@reports_errors
def baseline(
    *,
    output: Annotated[Path | None, typer.Option(help="New file for the baseline.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Baseline to compare a new measurement of its source with, in place of --output.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Entropy source, see 'qr-sampler sources'; QR_ENTROPY_SOURCE_TYPE if not given."
        ),
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Blocks to measure, one draw each; the error is about 0.57 / sqrt(blocks). "
            f"{DEFAULT_BLOCKS:,} by default, a tenth of the baseline's for --check.",
        ),
    ] = None,
    block_bytes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Bytes per block, those of the run; QR_SAMPLE_COUNT by default. --check takes "
            "the baseline's.",
        ),
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
    from which the same command resumes. --check measures again and says what has changed; it exits
    with 1 when the bytes have, or what the source says of itself. Latencies alone change with the
    load of the machine.
    """
    if (output is None) == (check is None):
        raise ConfigError("give --output for a new baseline, or --check to compare with an old one")
    if check is not None:
        _check(check, source, blocks, block_bytes, patience * 60.0)
    elif output is not None:
        _freeze(output, source, blocks or DEFAULT_BLOCKS, block_bytes, patience * 60.0)


def _freeze(
    output: Path, source: str | None, blocks: int, block_bytes: int | None, patience_s: float
) -> None:
    """Measures a baseline into a new file and says how to use it."""
    if os.path.lexists(output):
        raise ConfigError(f"{output} exists; a baseline is frozen, so choose another file")
    check_destination(output)
    settings = Settings.load()
    name = settings.entropy_source_type if source is None else source
    size = settings.sample_count if block_bytes is None else block_bytes
    with stdout_reserved(), contextlib.closing(create_source(name)) as device:
        kept = output.with_name(f"{output.name}.partial")
        early = warning_before(blocks, size, settings.max_ks_distance)
        measured = _measured(device, kept, blocks, size, patience_s, early).baseline()
        measured.save(output)
        kept.unlink(missing_ok=True)
    typer.echo(printable(_described(measured, settings.max_ks_distance)))
    typer.echo(printable(next_step(measured, output)))


def _check(
    path: Path, source: str | None, blocks: int | None, block_bytes: int | None, patience_s: float
) -> None:
    """Measures the source of a baseline again and says what has changed."""
    then = Baseline.load(path)
    if source not in (None, then.source):
        raise ConfigError(f"{path} is a baseline of {then.source!r}, not of --source={source}")
    if block_bytes not in (None, then.block_bytes):
        raise ConfigError(f"{path} has blocks of {then.block_bytes:,} bytes; omit --block-bytes")
    count = blocks or min(then.blocks, max(FEWEST_CHECKED, then.blocks // 10))
    if min(count, then.blocks) < FEWEST_COMPARED:
        raise ConfigError(
            f"{count:,} new blocks beside {then.blocks:,} of {path}: the laws of a comparison hold "
            f"from {FEWEST_COMPARED} of each on; measure more"
        )
    kept = path.with_name(f"{path.name}.check.partial")
    check_destination(kept)
    with stdout_reserved(), contextlib.closing(create_source(then.source)) as device:
        measurement = _measured(device, kept, count, then.block_bytes, patience_s)
        now = measurement.baseline()
        kept.unlink(missing_ok=True)
    figures = compared(then, now, measurement.latencies_ns)
    differences = described_differences(then, now)
    print_check(then, now, figures, differences)
    if differences or any(each.has_changed and each.kind == "bytes" for each in figures):
        raise typer.Exit(CHANGED_STATUS)


def _measured(
    device: EntropySource,
    kept: Path,
    blocks: int,
    block_bytes: int,
    patience_s: float,
    warning: str = "",
) -> BaselineMeasurement:
    run = BaselineRun(device, kept, block_bytes=block_bytes, patience_s=patience_s, tell=remark)
    _announce(device, run, blocks, block_bytes)
    if warning:
        remark(warning)
    with counting_bar(
        f"measuring {printable(device.name)}", unit="blocks", initial=run.measurement.blocks
    ) as progress:
        run.measure(blocks, progress)
    if run.failures:
        remark(f"{run.failures:,} draws failed and were repeated")
    return run.measurement


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
        "error of a comparison": f"sqrt(1/N + 1/{measured.blocks:,}) sd with N tokens",
        "too short": f"for more than {measured.most_tokens:,} tokens, a tenth of the blocks",
    }
    aligned = [f"{label:<24}{value}" for label, value in lines.items()]
    # Too long to be aligned with the others in a window of 80 columns.
    return "\n".join([*aligned, f"digest {measured.digest}"])
