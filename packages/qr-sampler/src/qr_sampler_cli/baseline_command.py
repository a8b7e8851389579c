# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler baseline``: what a device does when nothing is asked of it, frozen in a file."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler.amplification import Baseline, measure_baseline
from qr_sampler.errors import ConfigError
from qr_sampler.registry import create_source
from qr_sampler.settings import Settings
from qr_sampler_cli.consoles import printable, stdout_reserved
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.progress import counting_bar
from qr_sampler_cli.records_file import check_destination

__all__ = ["baseline"]

DEFAULT_BLOCKS: Final = 40_000
"""Enough for every amplifier that has a baseline, with the default block length, to be admitted
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
) -> None:
    """Measure the bytes of an entropy source and freeze their figures for the amplifiers.

    Only the source itself is measured: there is no fallback, and a failed draw ends the command
    without a file.
    """
    if output.exists():
        raise ConfigError(f"{output} exists; a baseline is frozen, so choose another file")
    check_destination(output)
    settings = Settings.load()
    name = settings.entropy_source_type if source is None else source
    size = settings.sample_count if block_bytes is None else block_bytes
    measured = _measure(name, blocks, size)
    measured.save(output)
    typer.echo(printable(_described(measured, settings.max_ks_distance)))
    typer.echo(_next_step(measured, output, settings))


def _measure(name: str, blocks: int, block_bytes: int) -> Baseline:
    with (
        stdout_reserved(),
        contextlib.closing(create_source(name)) as source,
        counting_bar(f"measuring {printable(name)}", unit="blocks") as progress,
    ):
        return measure_baseline(source, blocks=blocks, block_bytes=block_bytes, progress=progress)


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
        "digest": measured.digest,
    }
    return "\n".join(f"{label:<24}{value}" for label, value in lines.items())


def _next_step(measured: Baseline, output: Path, settings: Settings) -> str:
    """Returns the shell commands that make the amplifiers refer to the baseline."""
    variables = {"QR_BASELINE_FILE": str(output.resolve())}
    # What the settings name already needs no saying.
    if measured.source != settings.entropy_source_type:
        variables["QR_ENTROPY_SOURCE_TYPE"] = measured.source
    if measured.block_bytes != settings.sample_count:
        variables["QR_SAMPLE_COUNT"] = str(measured.block_bytes)
    exports = [f"  export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(
        ["to use it with zscore_mean, bit_zscore or ecdf (QR_SIGNAL_AMPLIFIER_TYPE):", *exports]
    )
