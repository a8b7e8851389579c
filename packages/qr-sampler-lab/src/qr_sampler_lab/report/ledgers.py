# SPDX-License-Identifier: Apache-2.0
"""What a report is about: ledgers that the audit has admitted, or tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qr_sampler_cli.audit.auditor import AuditedRun, audit_runs
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_lab.tables.chunking import Encoders
from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.tables.ledgers import LedgerReading
from qr_sampler_lab.tables.parquet import TokenTable, is_table
from qr_sampler_lab.tables.rows import RunRows

__all__ = ["NotAdmittedError", "ReportInput"]

TABLE_ROWS: Final = 2**16
"""Tokens of a table that are read at once."""

_FROM_TABLES: Final = (
    "Read from tables: this report does not check that they are what the ledgers say. The heads "
    "are those that the tables name."
)


_TOLD: Final = ("run", "file", "lines", "unreadable", "head")
"""What is taken from the metadata of a table."""

_SEALED: Final = (
    "A ledger belongs to a sealed study, whose own report decides: this one explores, and who "
    "reads it before the end of the study is not blind any more."
)


class NotAdmittedError(TablesError):
    """A ledger fails a rung of the audit without which there is nothing to analyse."""


@dataclass(slots=True, kw_only=True)
class ReportInput:
    """Tokens, and what vouches for them."""

    chunks: Iterator[TokenChunk]
    """The tokens in the order of time."""
    ledgers: list[dict[str, Any]]
    """The ledgers: ``run``, ``head``, ``lines``, ``rungs``."""
    stamps: list[str]
    """What a reader has to know before anything else."""
    discards: Counter[tuple[str | None, ...]] = field(default_factory=Counter)
    """Number of discards by the labels of their sequences, once all tokens are read."""

    @classmethod
    def of(
        cls, paths: Iterable[Path], *, by: Sequence[str], anyway: bool, window: int
    ) -> ReportInput:
        """Returns what is at *paths*; ledgers are audited first.

        Args:
            paths: Ledgers or their directories; or tables.
            by: Columns that discards are counted by.
            anyway: Whether ledgers that fail are read nevertheless, with a stamp.
            window: As for :func:`~qr_sampler_lab.tables.reading.token_chunks`.

        Raises:
            NotALedgerError: When a path leads to anything else.
            NotAdmittedError: When a ledger fails rung 1 or 2, or has no chain.
        """
        given = list(paths)
        tables = [path for path in given if is_table(path)]
        if not tables:
            return _of_ledgers(given, by, anyway=anyway, window=window)
        if len(tables) < len(given):
            raise TablesError("tables and ledgers cannot be read together; export the ledgers")
        return _of_tables([TokenTable(path) for path in tables])


def _of_tables(tables: Sequence[TokenTable]) -> ReportInput:
    encoders = Encoders()
    heads = [told for table in tables for told in _told_of(table)]
    stamps = [_FROM_TABLES]
    if any(table.made_of.get("blind") for table in tables):
        stamps.append("Blind: names are aliases, and settings are left out.")
    return ReportInput(
        chunks=(chunk for table in tables for chunk in table.chunks(TABLE_ROWS, encoders)),
        ledgers=heads,
        stamps=stamps,
    )


def _told_of(table: TokenTable) -> Iterator[dict[str, Any]]:
    """Yields the ledgers that a table names. What rungs they hold, a table cannot vouch for."""
    ledgers = table.made_of.get("ledgers")
    for told in ledgers if isinstance(ledgers, list) else ():
        if isinstance(told, dict):
            yield {name: told[name] for name in _TOLD if isinstance(told.get(name), (str, int))}


def _of_ledgers(
    paths: Sequence[Path], by: Sequence[str], *, anyway: bool, window: int
) -> ReportInput:
    runs = audit_runs(ledgers_of(paths))
    faults = [fault for run in runs for fault in _faults(run)]
    if faults and not anyway:
        raise NotAdmittedError(
            f"{faults[0]}; see `qr-sampler audit`, and use --anyway for a report that says so"
        )
    told = ReportInput(
        chunks=iter(()),
        ledgers=[_described(run) for run in runs],
        stamps=[f"NOT ADMITTED: {fault}" for fault in faults],
    )

    def count(run: RunRows) -> None:
        for row in run.discards:
            told.discards[_labels(run.files[0].run_id, row, by)] += 1
        is_sealed = run.genesis is not None and run.genesis.seal is not None
        if is_sealed and _SEALED not in told.stamps:
            told.stamps.append(_SEALED)

    told.chunks = LedgerReading(paths, window=window, with_rows=count).chunks()
    return told


def _labels(run: str, row: Any, by: Sequence[str]) -> tuple[str | None, ...]:
    known = {"run": run, "source": row.line.source, "role": row.line.role}
    return tuple(known.get(name, getattr(row.sequence, name, None)) for name in by)


def _faults(run: AuditedRun) -> Iterator[str]:
    name = run.run_id[:40] or "without a name"
    if run.version == 1:
        yield f"run {name} is of version 1, whose lines have no chain"
    for rung in run.rungs[:2]:
        if rung.failed:
            first = rung.failures[0]
            where = f"{first.where}: " if first.where else ""
            yield f"run {name} fails rung {rung.number} ({rung.name}): {where}{first.what}"


def _described(run: AuditedRun) -> dict[str, Any]:
    return {
        "run": run.run_id,
        "head": run.head,
        "lines": run.lines,
        "tokens": run.tokens,
        "rungs": {f"{rung.number} {rung.name}": rung.status for rung in run.rungs},
    }
