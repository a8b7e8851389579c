# SPDX-License-Identifier: Apache-2.0
"""The report on a terminal or in a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from qr_sampler_cli.quality.report import ALPHA, QualityReport
from qr_sampler_cli.terminal.consoles import printable, result_console, unpadded

__all__ = ["print_report"]

_SMALLEST_SHOWN: Final = 1e-300


def print_report(report: QualityReport) -> None:
    """Prints a report to standard output."""
    console = result_console()
    for line in _figures(report):
        typer.echo(printable(line))
    typer.echo("")
    typer.echo(unpadded(console, _tests(report)))
    for each in report.programs:
        version = f" ({each.version})" if each.version else ""
        typer.echo(printable(f"{each.program}{version}: {each.outcome}: {each.words}"))
    typer.echo("")
    typer.echo(printable(report.verdict))
    typer.echo("Not tested:")
    for line in report.not_tested:
        typer.echo(printable(f"- {line}"))


def _figures(report: QualityReport) -> Iterator[str]:
    sample, ent, entropy = report.sample, report.ent, report.min_entropy
    origin = f"{sample.origin} ({sample.distribution})" if sample.distribution else sample.origin
    planes = " ".join(f"{share:.5f}" for share in report.bit_planes)
    lines = {
        "sample": f"{len(sample.data):,} bytes from {origin}",
        "conditioning": sample.conditioning or "not known of a file",
        "min-entropy": f"{entropy.least:.4f} bits a byte (most common byte "
        f"{entropy.most_common_byte:.4f}, bit {entropy.most_common_bit:.4f}, Markov "
        f"{entropy.markov:.4f})",
        "entropy": f"{ent.entropy:.6f} bits a byte",
        "mean": f"{ent.mean:.4f} (127.5 if uniform)",
        "Monte Carlo pi": f"{ent.pi:.6f}",
        "serial correlation": f"{ent.serial_correlation:+.6f}",
        "bit planes, high first": planes,
        "SHA-256": report.sha256,
    }
    return (f"{label:<24}{value}" for label, value in lines.items())


def _tests(report: QualityReport) -> Table:
    words = {test.name: test.words for test in report.tests}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("test", "p", "p (Holm)", "measured"):
        table.add_column(heading, justify="right" if heading.startswith("p") else "left")
    for each in report.corrected:
        style = "bold red" if each.adjusted < ALPHA else ""
        table.add_row(
            Text(printable(each.name), style=style),
            _shown(each.p_value),
            _shown(each.adjusted),
            Text(printable(words.get(each.name, ""))),
        )
    return table


def _shown(p_value: float) -> str:
    if p_value < _SMALLEST_SHOWN:
        return f"<{_SMALLEST_SHOWN:g}"
    return f"{p_value:.3g}"
