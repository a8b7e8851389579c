# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler export``: ledgers as tables."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from qr_sampler_cli.failures import reports_errors

__all__ = ["export"]


class FileFormat(str, Enum):
    """Format of the tables."""

    PARQUET = "parquet"
    CSV = "csv"


@reports_errors
def export(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Ledgers, or directories whose *.jsonl are ledgers."
        ),
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the tables.")],
    file_format: Annotated[
        FileFormat, typer.Option("--format", help="Format of the tables.")
    ] = FileFormat.PARQUET,
    blind: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Replace what tells arms apart by aliases. A file that the analyst does not have, "
            "such as the key.json of a study, or 64 hexadecimal digits.",
        ),
    ] = None,
    window: Annotated[
        int,
        typer.Option(
            metavar="TOKENS",
            min=1,
            max=2**24,
            help="Number of tokens among which those of a run are put in the order of time.",
        ),
    ] = 2**16,
) -> None:
    """Write ledgers as tables: tokens, draws, sequences and discards.

    Tokens are in the order of time. The digests of the ledgers' last lines are in the metadata of
    Parquet files, and in tables.json beside CSV. A ledger that is still being written is read to
    its last newline. Nothing is judged here: see `qr-sampler audit`.
    """
    from qr_sampler_cli.terminal.consoles import printable
    from qr_sampler_lab.tables.blinding import Blinding, blinding_key
    from qr_sampler_lab.tables.export import export_tables

    blinding = None if blind is None else Blinding(blinding_key(blind))
    told = export_tables(paths, to, file_format=file_format.value, blinding=blinding, window=window)
    for table, rows in told.rows.items():
        name = printable(f"{to / table}.{file_format.value}")
        typer.echo(f"{name}: {rows:,} rows")
    unreadable = sum(ledger.get("unreadable", 0) for ledger in told.made_of["ledgers"])
    if unreadable:
        typer.echo(
            f"{unreadable:,} lines are no records and were left out; see `qr-sampler audit`",
            err=True,
        )
