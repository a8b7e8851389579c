# SPDX-License-Identifier: Apache-2.0
"""What a check of a baseline prints."""

from __future__ import annotations

import math
from collections.abc import Sequence

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from qr_sampler.amplification import Baseline
from qr_sampler_cli.baseline.comparison import ALPHA, Difference, Figure
from qr_sampler_cli.terminal.consoles import printable, result_console, unpadded

__all__ = ["print_check", "verdict"]


def print_check(
    then: Baseline, now: Baseline, figures: Sequence[Figure], differences: Sequence[Difference]
) -> None:
    """Prints all figures then and now, what is said otherwise, and the verdict."""
    typer.echo(
        printable(
            f"{then.source}: {now.blocks:,} new blocks of {now.block_bytes:,} bytes beside "
            f"{then.blocks:,} of the baseline {then.digest[:16]}"
        )
    )
    typer.echo(unpadded(result_console(), _table(figures)))
    for each in differences:
        typer.echo(printable(f"{each.name}: was {each.then!r}, is {each.now!r}"))
    if then.fingerprint is None:
        typer.echo(
            "The file has no fingerprint: bit planes, histogram, correlations, latencies, device "
            "and settings were not compared; measure a new baseline to have one."
        )
    typer.echo(printable(verdict(now.blocks, then.blocks, figures, differences)))


def verdict(
    new_blocks: int, blocks: int, figures: Sequence[Figure], differences: Sequence[Difference]
) -> str:
    """Returns what has changed, in words.

    Args:
        new_blocks: Number of new blocks.
        blocks: Number of blocks of the baseline.
        figures: What was measured.
        differences: What is said otherwise.
    """
    changed = [figure.name for figure in figures if figure.has_changed]
    changed += [each.name for each in differences]
    if changed:
        return f"Changed: {', '.join(changed)}."
    error = math.sqrt(1.0 / new_blocks + 1.0 / blocks)
    return (
        f"Nothing has changed that {new_blocks:,} blocks could show: the standard error of a mean "
        f"of blocks is {error:.2g} of their standard deviation."
    )


def _table(figures: Sequence[Figure]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("figure", "then", "now", "p", "p (Holm)"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for each in figures:
        numbers = (each.then, each.now, each.p_value, each.adjusted)
        shown = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers[:2]]
        shown += [f"{number:.3g}" for number in numbers[2:]]
        style = "bold red" if each.adjusted < ALPHA else ""
        table.add_row(Text(each.name, style=style), *shown)
    return table
