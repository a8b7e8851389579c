# SPDX-License-Identifier: Apache-2.0
"""Reads tables of tokens that ``qr-sampler export`` has written as Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from qr_sampler_lab.tables.arrow import chunk_from
from qr_sampler_lab.tables.chunking import Encoders
from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.tables.files import METADATA_KEY

__all__ = ["TokenTable", "is_table"]

_BUFFER: Final = 2**20


def is_table(path: Path) -> bool:
    """Returns whether *path* is a Parquet file, or a directory with a table of tokens."""
    return path.suffix == ".parquet" or (path / "tokens.parquet").is_file()


class TokenTable:
    """A table of tokens in a Parquet file.

    Args:
        path: The file, or the directory that it is in.

    Raises:
        TablesError: When it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / "tokens.parquet" if path.is_dir() else path
        try:
            # Buffering ahead would hold the whole file.
            self._file = pa.parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER)
        except (OSError, pa.ArrowException) as error:
            raise TablesError(f"{self.path} cannot be read as Parquet: {error}") from error
        self.made_of: dict[str, Any] = self._metadata()
        """What the table says that it was made of; empty if it says nothing."""
        self.rows: int = self._file.metadata.num_rows
        """Number of its tokens."""

    def _metadata(self) -> dict[str, Any]:
        text = (self._file.metadata.metadata or {}).get(METADATA_KEY, b"{}")
        try:
            told = json.loads(text)
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}

    def chunks(self, size: int, encoders: Encoders) -> Iterator[TokenChunk]:
        """Yields the tokens.

        Args:
            size: Largest number of tokens of a chunk.
            encoders: Of the labels.

        Raises:
            TablesError: When the file is no table of tokens.
        """
        try:
            for batch in self._file.iter_batches(batch_size=size):
                chunk = chunk_from(batch, encoders)
                yield self._with_law(chunk, encoders) if self.made_of.get("blind") else chunk
        except (OSError, pa.ArrowException) as error:
            raise TablesError(f"{self.path} cannot be read: {error}") from error

    def _with_law(self, chunk: TokenChunk, encoders: Encoders) -> TokenChunk:
        """Returns a chunk of a blind table with what the table says of the law of u.

        Which tokens refer to a baseline or are drafts it does not say, so all count as such if some
        are, or if it says nothing.
        """
        told = self.made_of.get("law")
        law = told if isinstance(told, dict) else {}
        step = law.get("lattice_step")
        known: dict[str, Any] = {}
        if isinstance(step, float) and step > 0.0:
            known["lattice_step"] = np.full(len(chunk), step)
        if law.get("baseline") is not False:
            known["baseline"] = encoders.of["baseline"](["left out"] * len(chunk))
        if law.get("drafts") is not False:
            known["role"] = encoders.of["role"](["proposal"] * len(chunk))
        return replace(chunk, **known)
