# SPDX-License-Identifier: Apache-2.0
"""Tables are what the records say, whoever reads them."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from qr_sampler.records.reader import read_ledger
from qr_sampler_lab.tables.columns import COLUMNS, LABELS, TokenChunk
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.tables.export import export_tables
from qr_sampler_lab.tables.files import METADATA_KEY
from qr_sampler_lab.tables.parquet import TokenTable
from qr_sampler_lab.tables.reading import token_chunks

duckdb = pytest.importorskip("duckdb")
polars = pytest.importorskip("polars")

SUMS = ("u", "statistic", "block_sum", "block_ones", "rank", "entropy_nats", "token_id")


@pytest.fixture(params=[1, 2])
def ledger(request: pytest.FixtureRequest, played: Any) -> Path:
    return Path(played(seed=request.param, overlapping=request.param == 2))


def sums_of_records(path: Path) -> dict[str, float]:
    tokens = [line for line in read_ledger(path) if line["kind"] == "token"]
    return {name: sum(line[name] for line in tokens) for name in SUMS} | {"count": len(tokens)}


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_other_readers_add_up_what_records_say(
    ledger: Path, tmp_path: Path, command: Any, file_format: str
) -> None:
    told = command("export", ledger, "--to", tmp_path / "tables", "--format", file_format)
    assert told.exit_code == 0, told.output
    expected = sums_of_records(ledger)
    path = tmp_path / "tables" / f"tokens.{file_format}"
    selected = ", ".join(f"sum({name})" for name in SUMS)
    (row,) = duckdb.execute(f"select {selected}, count(*) from '{path}'").fetchall()
    assert row == pytest.approx([expected[name] for name in (*SUMS, "count")], rel=1e-12)
    frame = polars.read_parquet(path) if file_format == "parquet" else polars.read_csv(path)
    for name in SUMS:
        assert frame[name].sum() == pytest.approx(expected[name], rel=1e-12)
    assert frame["received_ns"].is_sorted()
    by_source = dict(frame.group_by("source").len().iter_rows())
    tokens = [line for line in read_ledger(ledger) if line["kind"] == "token"]
    assert by_source == {
        source: sum(line["source"] == source for line in tokens) for source in by_source
    }
    assert len(by_source) > 1


def test_tables_can_be_joined(ledger: Path, tmp_path: Path, lines: Any) -> None:
    export_tables([ledger], tmp_path / "tables")
    tables = tmp_path / "tables"
    joined = duckdb.execute(
        f"""
        select s.request_key, t.position, t.u, d.wall_time_ns, d.bytes
        from '{tables}/tokens.parquet' t
        join '{tables}/draws.parquet' d on (t.run, t.draw) = (d.run, d.draw)
        join '{tables}/sequences.parquet' s using (sequence)
        """
    ).fetchall()
    fields = ("request_key", "position", "u", "wall_time_ns", "draw_bytes")
    tokens = [line for line in read_ledger(ledger) if line["kind"] == "token"]
    assert sorted(joined) == sorted(tuple(line[name] for name in fields) for line in tokens)
    told = lines(ledger)
    for table, kind in (("draws", "draw"), ("sequences", "sequence"), ("discards", "discard")):
        rows = polars.read_parquet(tables / f"{table}.parquet")
        of_kind = [line for line in told if line["kind"] == kind]
        assert len(rows) == len(of_kind) > 0
        assert rows["wall_time_ns"].to_list() == [line["wall_time_ns"] for line in of_kind]
    options = polars.read_parquet(tables / "sequences.parquet")["options"].to_list()
    assert [json.loads(text) for text in options] == [
        line["options"] for line in told if line["kind"] == "sequence"
    ]


def test_parquet_gives_the_same_chunks_as_the_ledger(ledger: Path, tmp_path: Path) -> None:
    export_tables([ledger], tmp_path / "tables")
    expected = TokenChunk.concatenated(token_chunks([ledger]))
    for path in (tmp_path / "tables", tmp_path / "tables" / "tokens.parquet"):
        chunk = TokenChunk.concatenated(token_chunks([path], chunk=100))
        for name in COLUMNS:
            own, other = getattr(chunk, name), getattr(expected, name)
            if name in LABELS:
                assert own.texts() == other.texts(), name
            else:
                assert own.dtype == other.dtype, name
                assert np.array_equal(own, other, equal_nan=own.dtype == np.float64), name


def test_metadata_have_the_head_of_every_ledger(ledger: Path, tmp_path: Path) -> None:
    last = ledger.read_bytes().split(b"\n")[-2]
    export_tables([ledger], tmp_path / "parquet")
    export_tables([ledger], tmp_path / "csv", file_format="csv")
    for table in ("tokens", "draws", "sequences", "discards"):
        file = pyarrow.parquet.ParquetFile(tmp_path / "parquet" / f"{table}.parquet")
        told = json.loads(file.metadata.metadata[METADATA_KEY])
        assert [each["head"] for each in told["ledgers"]] == [hashlib.sha256(last).hexdigest()]
        assert told["rows"] == file.metadata.num_rows
    beside = json.loads((tmp_path / "csv" / "tables.json").read_text())
    assert beside["ledgers"] == told["ledgers"]
    assert TokenTable(tmp_path / "parquet").made_of["ledgers"] == told["ledgers"]


def test_text_columns_are_dictionaries_and_files_are_private(ledger: Path, tmp_path: Path) -> None:
    export_tables([ledger], tmp_path / "tables")
    for path in (tmp_path / "tables").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    schema = pyarrow.parquet.read_schema(tmp_path / "tables" / "tokens.parquet")
    for name in LABELS:
        assert pa.types.is_dictionary(schema.field(name).type), name
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        f"{name}.parquet" for name in ("discards", "draws", "sequences", "tokens")
    ]


def test_nothing_is_overwritten_or_left_half(
    ledger: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = command("export", ledger, "--to", tmp_path / "tables")
    assert told.exit_code == 0
    again = command("export", ledger, "--to", tmp_path / "tables")
    assert again.exit_code == 2
    assert "exists; name a directory without tables" in again.output
    monkeypatch.setattr("qr_sampler_lab.tables.lines.MOST_EMISSIONS", 0)
    with pytest.raises(TablesError):
        export_tables([ledger], tmp_path / "failed")
    assert list((tmp_path / "failed").iterdir()) == []


def test_a_table_of_something_else_is_refused(tmp_path: Path, played: Any) -> None:
    path = tmp_path / "tokens.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(TablesError, match="cannot be read as Parquet"):
        list(token_chunks([path]))
    pyarrow.parquet.write_table(pa.table({"u": [0.5]}), path)
    with pytest.raises(TablesError, match="has a column 'statistic'"):
        list(token_chunks([path]))
    pyarrow.parquet.write_table(pa.table({"u": [0.5], "statistic": [0.0]}), path)
    with pytest.raises(TablesError, match="'received_ns' or 'order'"):
        list(token_chunks([path]))
    unfit = {"u": ["half"], "statistic": [0.0], "received_ns": [1]}
    pyarrow.parquet.write_table(pa.table(unfit), path)
    with pytest.raises(TablesError, match="column 'u' of a table of tokens is unfit"):
        list(token_chunks([path]))
    with pytest.raises(TablesError, match="cannot be read together"):
        list(token_chunks([path, played()]))


def test_tables_of_others_need_few_columns(tmp_path: Path) -> None:
    path = tmp_path / "tokens.parquet"
    columns = {
        "u": [0.25, 0.5],
        "statistic": [-0.67, 0.0],
        "received_ns": [1, 2],
        "condition": ["HI", None],
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    (chunk,) = token_chunks([path])
    assert chunk.condition.texts() == ["HI", None]
    assert chunk.source.texts() == [None, None]
    assert chunk.emitted.tolist() == [-1, -1]
    assert np.isnan(chunk.entropy_nats).all()
