# SPDX-License-Identifier: Apache-2.0
"""Writes ledgers as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from qr_sampler_lab import __version__
from qr_sampler_lab.tables.arrow import DISCARDS, DRAWS, SEQUENCES, TOKENS, batch_of
from qr_sampler_lab.tables.blinding import (
    BLIND_DISCARDS,
    BLIND_SEQUENCES,
    BLIND_TOKENS,
    Blinding,
)
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.tables.files import Format, TableFile, open_new
from qr_sampler_lab.tables.ledgers import WINDOW, LedgerReading
from qr_sampler_lab.tables.rows import DiscardRow, RunRows, SequenceRow

__all__ = ["TABLES_VERSION", "Exported", "export_tables"]

TABLES_VERSION: Final = 1
"""Version of the columns; raised when one changes its meaning."""

_Column = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What has been written."""

    folder: Path
    """Where it is."""
    rows: dict[str, int]
    """Number of rows, by table."""
    made_of: dict[str, Any]
    """What stands in the metadata."""


def export_tables(
    paths: Iterable[Path],
    folder: Path,
    *,
    file_format: Format = "parquet",
    blinding: Blinding | None = None,
    window: int = WINDOW,
) -> Exported:
    """Writes tables of ledgers, as far as their last newlines, into a directory.

    Args:
        paths: Ledgers, or directories of them.
        folder: The directory, made if there is none.
        file_format: The format.
        blinding: Makes aliases of names, and leaves out what tells arms apart.
        window: Number of tokens among which those of a run are put in order.

    Raises:
        NotALedgerError: When a path leads to anything else.
        TablesError: When the tables cannot be written, or are there already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TablesError(f"{folder} cannot be made: {error.strerror}") from error
    writing = _Writing(folder, file_format, blinding)
    reading = LedgerReading(paths, window=window, with_rows=writing.take)
    try:
        writing.open()
        for chunk in reading.chunks():
            batch = batch_of(chunk) if blinding is None else blinding.batch(chunk)
            writing.tables["tokens"].add(batch)
        return writing.finish(reading.runs)
    except (OSError, pa.ArrowException) as error:
        raise TablesError(f"{folder} cannot be written: {error}") from error
    finally:
        writing.abandon()


class _Writing:
    def __init__(self, folder: Path, file_format: Format, blinding: Blinding | None) -> None:
        self._folder = folder
        self._format = file_format
        self._blinding = blinding
        self.tables: dict[str, TableFile] = {}

    def open(self) -> None:
        """Begins the files."""
        if self._blinding is None:
            schemas = {
                "tokens": TOKENS,
                "draws": DRAWS,
                "sequences": SEQUENCES,
                "discards": DISCARDS,
            }
        else:
            schemas = {
                "tokens": BLIND_TOKENS,
                "sequences": BLIND_SEQUENCES,
                "discards": BLIND_DISCARDS,
            }
        for name, schema in schemas.items():
            self.tables[name] = TableFile(self._folder, name, schema, self._format)

    def take(self, run: RunRows) -> None:
        """Appends the rows of a run that are no tokens."""
        name = run.files[0].run_id
        if self._blinding is not None:
            self._take_blind(run, self._blinding)
            return
        self._add("draws", run.draws, {"run": lambda line: name})
        self._add("sequences", run.sequences, _sequence_columns(name))
        self._add("discards", run.discards, _discard_columns(name))

    def _take_blind(self, run: RunRows, blinding: Blinding) -> None:
        facts = [row.facts for row in run.sequences]
        self._add("sequences", facts, _blind_columns(run.files[0].run_id, blinding))
        decided = [
            row
            for row in run.discards
            if row.line.u is not None and row.sequence is not None and row.sequence.requested
        ]
        columns = _blind_columns(run.files[0].run_id, blinding)
        of_sequence = {name: _of_sequence(column) for name, column in columns.items()}
        self._add("discards", decided, {**of_sequence, "u": lambda row: row.line.u})

    def _add(self, table: str, rows: Sequence[Any], columns: dict[str, _Column]) -> None:
        if not rows:
            return
        schema = self.tables[table].schema
        arrays = [
            pa.array(
                [columns[field.name](row) for row in rows]
                if field.name in columns
                else [getattr(row, field.name) for row in rows],
                type=field.type,
            )
            for field in schema
        ]
        self.tables[table].add(pa.record_batch(arrays, schema=schema))

    def finish(self, runs: Sequence[RunRows]) -> Exported:
        """Ends the files."""
        made_of = _made_of(runs, blind=self._blinding is not None)
        if self._blinding is not None:
            made_of["law"] = self._blinding.law
        for table in self.tables.values():
            table.finish(made_of)
        rows = {name: table.rows for name, table in self.tables.items()}
        if self._format == "csv":
            self._describe({**made_of, "tables": rows})
        return Exported(folder=self._folder, rows=rows, made_of=made_of)

    def _describe(self, made_of: dict[str, Any]) -> None:
        part = self._folder / ".tables.json.part"
        with open_new(part) as file:
            file.write(json.dumps(made_of, indent=2).encode() + b"\n")
        part.replace(self._folder / "tables.json")

    def abandon(self) -> None:
        """Removes what is unfinished."""
        for table in self.tables.values():
            table.abandon()


def _sequence_columns(run: str) -> dict[str, _Column]:
    def of_line(name: str) -> _Column:
        return lambda row: getattr(row.line, name)

    def as_json(name: str) -> _Column:
        return lambda row: msgspec.json.encode(getattr(row.line, name)).decode()

    def number(row: SequenceRow) -> int:
        return row.facts.number

    return {
        "run": lambda row: run,
        "sequence": number,
        "name": of_line("sequence"),
        "requested": lambda row: row.facts.requested,
        **{name: as_json(name) for name in ("options", "fields", "stop")},
        **{
            name: of_line(name)
            for name in (
                "request_key",
                "trial",
                "condition",
                "prompt_tokens",
                "prompt_digest",
                "wall_time_ns",
            )
        },
    }


def _discard_columns(run: str) -> dict[str, _Column]:
    def of_sequence(name: str) -> _Column:
        return lambda row: None if row.sequence is None else getattr(row.sequence, name)

    def of_line(name: str) -> _Column:
        return lambda row: getattr(row.line, name)

    return {
        **{name: of_line(name) for name in DISCARDS.names},
        "run": lambda row: run,
        "sequence": of_sequence("number"),
        "condition": of_sequence("condition"),
        "trial": of_sequence("trial"),
    }


def _blind_columns(run: str, blinding: Blinding) -> dict[str, _Column]:
    """Returns the columns of a sequence's facts."""
    return {
        "run": lambda facts: blinding.alias("run", run),
        "sequence": lambda facts: blinding.number("sequence", facts.number),
        "source": lambda facts: blinding.alias("source", facts.requested),
        "condition": lambda facts: blinding.alias("condition", facts.condition),
        "trial": lambda facts: blinding.alias("trial", facts.trial),
    }


def _of_sequence(column: _Column) -> Callable[[DiscardRow], Any]:
    return lambda row: column(row.sequence)


def _made_of(runs: Sequence[RunRows], *, blind: bool) -> dict[str, Any]:
    """Returns what the metadata says of the ledgers."""
    ledgers = [
        {
            "run": run.files[0].run_id,
            "file": reading.file.path.name,
            "lines": reading.lines,
            "unreadable": reading.unreadable,
            "head": reading.head,
        }
        for run in runs
        for reading in run.readings
    ]
    if blind:
        # Names of files tell of times, and the order of the runs of arms.
        ledgers = sorted(({"head": told["head"]} for told in ledgers), key=lambda t: str(t["head"]))
    return {
        "tables_version": TABLES_VERSION,
        "written_by": f"qr-sampler-lab {__version__}",
        "blind": blind,
        "unplaced_tokens": sum(run.unplaced for run in runs),
        "ledgers": ledgers,
    }
