# SPDX-License-Identifier: Apache-2.0
"""The columns of the tables as Arrow types, and chunks as batches of them and back."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

from qr_sampler_lab.tables.columns import COLUMNS, LABELS, UNKNOWN, Labels, TokenChunk
from qr_sampler_lab.tables.errors import TablesError

__all__ = ["DISCARDS", "DRAWS", "SEQUENCES", "TOKENS", "batch_of", "chunk_from", "dictionary_of"]

_TEXT: Final = pa.dictionary(pa.int32(), pa.string())

_ABSENT: Final = {"offset": UNKNOWN, "draw": UNKNOWN, "token_id": UNKNOWN, "emitted": UNKNOWN}
"""What stands in a chunk where a table has no value."""

ORDER: Final = "order"
"""What stands in tables without times in place of ``received_ns``: the number of the draw."""

_RENAMED: Final = {ORDER: "received_ns"}
_BOOLS: Final = frozenset(("emitted", "fallback", "jit"))
_FLOATS: Final = frozenset(
    (
        "u",
        "statistic",
        "lattice_step",
        "temperature",
        "entropy_nats",
        "varentropy_nats2",
        "probability",
    )
)


def _type_of(name: str) -> pa.DataType:
    if name in LABELS:
        return _TEXT
    if name in _BOOLS:
        return pa.bool_()
    return pa.float64() if name in _FLOATS else pa.int64()


TOKENS: Final = pa.schema([(name, _type_of(name)) for name in COLUMNS])
"""Columns of the table of tokens, those of :class:`~qr_sampler_lab.tables.columns.TokenChunk`."""

DRAWS: Final = pa.schema(
    [
        ("run", _TEXT),
        ("draw", pa.int64()),
        ("source", _TEXT),
        ("source_distribution", _TEXT),
        ("source_version", _TEXT),
        ("fallback", pa.bool_()),
        ("fallback_reason", _TEXT),
        ("bytes", pa.int64()),
        ("requests", pa.int64()),
        ("data_sha256", pa.string()),
        ("device_id", _TEXT),
        ("device_timestamp_ns", pa.int64()),
        ("commitment", pa.string()),
        ("echo_verified", pa.bool_()),
        ("signature_verified", pa.bool_()),
        ("health", _TEXT),
        ("t_logits_ns", pa.int64()),
        ("t_request_ns", pa.int64()),
        ("t_received_ns", pa.int64()),
        ("wall_time_ns", pa.int64()),
    ]
)
"""Columns of the table of draws: the fields of their lines."""

SEQUENCES: Final = pa.schema(
    [
        ("run", _TEXT),
        ("sequence", pa.int64()),
        ("name", pa.string()),
        ("request_key", pa.string()),
        ("trial", _TEXT),
        ("condition", _TEXT),
        ("requested", _TEXT),
        ("prompt_tokens", pa.int64()),
        ("prompt_digest", pa.string()),
        ("options", pa.string()),
        ("fields", pa.string()),
        ("stop", pa.string()),
        ("wall_time_ns", pa.int64()),
    ]
)
"""Columns of the table of sequences: ``sequence`` is the number that tokens have, ``name`` the name
in the ledger; ``options``, ``fields`` and ``stop`` are JSON."""

DISCARDS: Final = pa.schema(
    [
        ("run", _TEXT),
        ("sequence", pa.int64()),
        ("position", pa.int64()),
        ("reason", _TEXT),
        ("draw", pa.int64()),
        ("offset", pa.int64()),
        ("source", _TEXT),
        ("fallback", pa.bool_()),
        ("block_bytes", pa.int64()),
        ("u", pa.float64()),
        ("role", _TEXT),
        ("jit", pa.bool_()),
        ("condition", _TEXT),
        ("trial", _TEXT),
        ("wall_time_ns", pa.int64()),
    ]
)
"""Columns of the table of discards."""


def batch_of(chunk: TokenChunk, schema: pa.Schema = TOKENS) -> pa.RecordBatch:
    """Returns the columns of *schema* of a chunk as an Arrow batch."""
    return pa.record_batch([_array_of(getattr(chunk, n), n) for n in schema.names], schema=schema)


def _array_of(column: Any, name: str) -> pa.Array:
    if isinstance(column, Labels):
        return dictionary_of(column)
    absent = np.isnan(column) if name == "lattice_step" else None
    if name in _ABSENT:
        absent = column == _ABSENT[name]
    values = column.astype(np.bool_) if name == "emitted" else column
    return pa.array(values, mask=absent)


def dictionary_of(labels: Labels) -> pa.DictionaryArray:
    """Returns labels as a dictionary of those texts that occur; ``None`` as null."""
    used, codes = np.unique(labels.codes, return_inverse=True)
    texts = [labels.names[code] for code in used.tolist()]
    absent = np.array([text is None for text in texts], dtype=np.bool_)[codes]
    return pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int32), mask=absent), pa.array([text or "" for text in texts])
    )


def chunk_from(batch: pa.RecordBatch, encoders: Any) -> TokenChunk:
    """Returns the chunk of a batch of a table of tokens; of a blind one, as far as it has columns.

    Args:
        batch: The batch; ``u``, ``statistic`` and ``received_ns``, or ``order`` instead of it, have
            to be among its columns.
        encoders: Of the labels of the reading.

    Raises:
        TablesError: When a column is missing or holds something else.
    """
    for name in ("u", "statistic"):
        if name not in batch.schema.names:
            raise TablesError(f"a table of tokens has a column {name!r}; this one has none")
    if ORDER in batch.schema.names:
        batch = batch.rename_columns([_RENAMED.get(name, name) for name in batch.schema.names])
    if "received_ns" not in batch.schema.names:
        raise TablesError("a table of tokens has a column 'received_ns' or 'order'; this has none")
    return TokenChunk(**{name: _column_from(batch, name, encoders) for name in COLUMNS})


def _column_from(batch: pa.RecordBatch, name: str, encoders: Any) -> Any:
    if name not in batch.schema.names:
        return _without(batch, name, encoders)
    column = batch.column(name)
    try:
        if name in LABELS:
            return _labels_from(column, encoders.of[name])
        if column.null_count:
            column = column.cast(pa.int8()) if name == "emitted" else column
            column = column.fill_null(_ABSENT.get(name, float("nan")))
        values = column.to_numpy(zero_copy_only=False)
        return values.astype(_numpy_type(name), casting="same_kind", copy=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TablesError(f"the column {name!r} of a table of tokens is unfit: {error}") from error


def _without(batch: pa.RecordBatch, name: str, encoders: Any) -> Any:
    """Returns what stands for a column that a blind table leaves out."""
    if name in LABELS:
        return encoders.of[name]([None] * batch.num_rows)
    if name == "request_ns":
        return _column_from(batch, "received_ns", encoders)
    dtype = _numpy_type(name)
    if dtype == np.float64:
        return np.full(batch.num_rows, np.nan)
    return np.full(batch.num_rows, _ABSENT.get(name, _DEFAULTS.get(name, 0)), dtype)


_DEFAULTS: Final = {"jit": 1, "numbers": 1}


def _numpy_type(name: str) -> Any:
    if name == "emitted":
        return np.int8
    if name in _BOOLS:
        return np.bool_
    return np.float64 if name in _FLOATS else np.int64


def _labels_from(column: pa.Array, encoder: Any) -> Labels:
    if not isinstance(column, pa.DictionaryArray):
        column = column.cast(pa.string()).dictionary_encode()
    own = column.dictionary.to_pylist()
    codes = encoder(own).codes
    absent = int(encoder([None]).codes[0]) if column.null_count else 0
    indices = column.indices.fill_null(len(own)).to_numpy(zero_copy_only=False)
    return Labels(np.append(codes, np.int32(absent))[indices], encoder.names)
