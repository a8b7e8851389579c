# SPDX-License-Identifier: Apache-2.0
"""Tables on the way to files, Parquet or CSV, in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from qr_sampler_lab.tables.errors import TablesError

__all__ = ["FORMATS", "METADATA_KEY", "Format", "TableFile", "open_new"]

Format = Literal["parquet", "csv"]
FORMATS: Final[tuple[Format, ...]] = ("parquet", "csv")

METADATA_KEY: Final = b"qr_sampler"
"""Key of the metadata of a Parquet file under which stands what the table was made of, as JSON."""

GROUP_ROWS: Final = 2**17
"""Rows of a row group: what a reader has in memory at least."""


class TableFile:
    """A file that a table is written to, and that has its name only when it is whole.

    Args:
        folder: Where it will be.
        name: What the table is called.
        schema: Its columns.
        file_format: The format.

    Raises:
        TablesError: When there is such a file, or it cannot be written.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema, file_format: Format) -> None:
        self.path = folder / f"{name}.{file_format}"
        self.schema = schema
        self.rows = 0
        """Number of rows so far."""
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._part = self.path.with_name(f".{self.path.name}.part")
        if os.path.lexists(self.path):
            raise TablesError(f"{self.path} exists; name a directory without tables")
        self._file = open_new(self._part)
        self._writer = _writer(self._file, schema, file_format)

    def add(self, batch: pa.RecordBatch) -> None:
        """Appends rows."""
        if not batch.num_rows:
            return
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        if self._waiting_rows >= GROUP_ROWS:
            self._write()

    def add_rows(self, rows: list[dict[str, Any]]) -> None:
        """Appends rows that are given as one dict each."""
        if rows:
            self.add(pa.RecordBatch.from_pylist(rows, schema=self.schema))

    def _write(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, self.schema).unify_dictionaries()
            self._writer.write_table(_plain(table) if self.path.suffix == ".csv" else table)
            self.rows += table.num_rows
            self._waiting, self._waiting_rows = [], 0

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Writes what is left, says in the file what it was made of, and gives it its name."""
        self._write()
        text = json.dumps({**metadata, "rows": self.rows})
        if isinstance(self._writer, pa.parquet.ParquetWriter):
            self._writer.add_key_value_metadata({METADATA_KEY.decode(): text})
        self._close()
        self._part.replace(self.path)

    def abandon(self) -> None:
        """Removes what was written, unless it is finished."""
        self._close()
        self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        if not self._file.closed:
            self._writer.close()
            self._file.close()


def open_new(path: Path) -> BinaryIO:
    """Returns a new file that nobody else may read, in place of one that was left unfinished.

    Raises:
        TablesError: When it cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise TablesError(f"{path} cannot be written: {error.strerror}") from error


def _writer(file: BinaryIO, schema: pa.Schema, file_format: Format) -> Any:
    if file_format == "csv":
        return pa.csv.CSVWriter(file, _plain_schema(schema))
    texts = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    return pa.parquet.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=[*texts, *(n for n in _LATTICES if n in schema.names)],
        column_encoding={
            field.name: encoding for field in schema if (encoding := _encoding(field))
        },
        store_schema=True,
    )


_LATTICES: Final = ("lattice_step", "temperature")
"""Columns of numbers of which few are different."""


def _encoding(field: pa.Field) -> str | None:
    if field.name in _LATTICES:
        return None
    if pa.types.is_float64(field.type):
        return "BYTE_STREAM_SPLIT"
    return "DELTA_BINARY_PACKED" if pa.types.is_int64(field.type) else None


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        [
            pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type)
            for f in schema
        ]
    )


def _plain(table: pa.Table) -> pa.Table:
    return table.cast(_plain_schema(table.schema))
