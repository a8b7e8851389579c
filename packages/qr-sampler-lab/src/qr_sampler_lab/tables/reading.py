# SPDX-License-Identifier: Apache-2.0
"""Tokens of ledgers and of tables alike, in the order of their time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from qr_sampler_lab.tables.chunking import Encoders
from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.tables.ledgers import CHUNK, WINDOW, LedgerReading
from qr_sampler_lab.tables.parquet import TokenTable, is_table

__all__ = ["token_chunks"]


def token_chunks(
    paths: Iterable[Path], *, window: int = WINDOW, chunk: int = CHUNK
) -> Iterator[TokenChunk]:
    """Yields tokens in the order of (received, draw offset).

    Runs whose times are on one clock are merged, others follow each other as they began. Tables
    follow each other in the order given, and each has the order that it was written in.

    Args:
        paths: Ledgers or directories of them; or tables that ``export`` has written as Parquet, or
            their directories. Not both at once.
        window: Number of tokens among which those of a ledger are put in order.
        chunk: Largest number of tokens of a chunk that comes from a table.

    Raises:
        NotALedgerError: When a path leads to anything else.
        OrderError: When tokens of a ledger are further than *window* from their place.
        TablesError: When tables are not what they ought to be, or both kinds are given.
    """
    given = list(paths)
    tables = [path for path in given if is_table(path)]
    if not tables:
        yield from LedgerReading(given, window=window).chunks()
        return
    if len(tables) < len(given):
        raise TablesError("tables and ledgers cannot be read together; export the ledgers first")
    encoders = Encoders()
    for path in tables:
        yield from TokenTable(path).chunks(chunk, encoders)
