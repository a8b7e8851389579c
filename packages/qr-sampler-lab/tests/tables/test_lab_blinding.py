# SPDX-License-Identifier: Apache-2.0
"""In blind tables, nothing but aliases tells the arms of an experiment apart."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from qr_sampler.records.reader import read_ledger
from qr_sampler_lab.tables.blinding import Blinding, blinding_key
from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.tables.export import export_tables
from qr_sampler_lab.tables.files import METADATA_KEY
from qr_sampler_lab.tables.reading import token_chunks

KEY = "0123456789abcdef" * 4
TELLING = re.compile(
    r"device|mock_uniform|backup|HI|LO|intention|baseline-|trial-|request|toy|zscore|fixed|jsonl|"
    r"20\d{6}T"
)
"""Whatever names an arm, a source, a setting or a time in the ledger of two arms."""


@pytest.fixture
def blind(arms: Any, tmp_path: Path) -> tuple[Path, Path]:
    """Returns a ledger of two arms, and the folder of its blind tables."""
    ledger = arms()
    folder = tmp_path / "blind"
    export_tables([ledger], folder, blinding=Blinding(bytes.fromhex(KEY)))
    return ledger, folder


def cells(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def test_only_these_columns_are_left(blind: tuple[Path, Path]) -> None:
    _, folder = blind
    assert sorted(path.name for path in folder.iterdir()) == [
        "discards.parquet",
        "sequences.parquet",
        "tokens.parquet",
    ]
    assert pyarrow.parquet.read_schema(folder / "tokens.parquet").names == [
        *("order", "u", "statistic", "sequence", "emitted", "run", "source", "condition", "trial")
    ]


def test_no_name_and_no_time_is_in_the_tables(blind: tuple[Path, Path]) -> None:
    ledger, folder = blind
    texts: set[Any] = set()
    numbers: set[Any] = set()
    for path in folder.iterdir():
        for row in cells(path):
            for name, value in row.items():
                (texts if isinstance(value, str) else numbers).add(value)
                assert not TELLING.search(str(value)), name
        metadata = pyarrow.parquet.read_metadata(path).metadata[METADATA_KEY].decode()
        assert not TELLING.search(metadata)
        assert json.loads(metadata)["blind"] is True
        assert b"intention-HI" not in path.read_bytes()
    assert all(re.fullmatch("[0-9a-f]{16}", text) for text in texts)
    times = {line["t_received_ns"] for line in read_ledger(ledger) if line["kind"] == "token"}
    assert not numbers & times
    # The same pattern finds the names where they are.
    assert TELLING.search(json.dumps(next(iter(read_ledger(ledger)))))


def test_aliases_keep_together_what_belongs_together(blind: tuple[Path, Path]) -> None:
    ledger, folder = blind
    rows = cells(folder / "tokens.parquet")
    chunk = TokenChunk.concatenated(token_chunks([ledger]))
    assert [row["u"] for row in rows] == chunk.u.tolist()
    for column, clear in (
        ("source", chunk.requested.texts()),
        ("condition", chunk.condition.texts()),
        ("trial", chunk.trial.texts()),
        ("sequence", chunk.sequence.tolist()),
    ):
        pairs = set(zip(clear, (row[column] for row in rows), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), column
    order = [row["order"] for row in rows]
    assert order == sorted(order)
    assert len(set(order)) == len(set(zip(chunk.received_ns, chunk.draw, strict=True)))


def test_a_fallback_does_not_bear_the_name_of_another_arm(blind: tuple[Path, Path]) -> None:
    ledger, folder = blind
    chunk = TokenChunk.concatenated(token_chunks([ledger]))
    assert chunk.fallback.any()
    sources = [row["source"] for row in cells(folder / "tokens.parquet")]
    fallen = {source for source, fell in zip(sources, chunk.fallback, strict=True) if fell}
    whole = {source for source, fell in zip(sources, chunk.fallback, strict=True) if not fell}
    assert len(whole) == 2
    assert fallen < whole


def test_an_alias_is_an_hmac(blind: tuple[Path, Path], tmp_path: Path) -> None:
    ledger, folder = blind
    expected = hmac.new(bytes.fromhex(KEY), b"condition\1intention-HI", hashlib.sha256)
    aliases = {row["condition"] for row in cells(folder / "tokens.parquet")}
    assert expected.hexdigest()[:16] in aliases
    export_tables([ledger], tmp_path / "other", blinding=Blinding(b"\1" * 32))
    others = {row["condition"] for row in cells(tmp_path / "other" / "tokens.parquet")}
    assert len(others) == 2
    assert not others & aliases
    assert Blinding(b"\1" * 32).alias("trial", None) != Blinding(b"\1" * 32).alias("trial", "")


def test_blind_tables_can_be_read_again(blind: tuple[Path, Path]) -> None:
    ledger, folder = blind
    chunk = TokenChunk.concatenated(token_chunks([folder]))
    clear = TokenChunk.concatenated(token_chunks([ledger]))
    assert chunk.u.tolist() == clear.u.tolist()
    assert set(chunk.device.texts()) == {None}
    assert not chunk.block_bytes.any()


def test_a_key_is_hexadecimal_or_a_file(tmp_path: Path, arms: Any, command: Any) -> None:
    secret = tmp_path / "key.json"
    secret.write_text('{"arms": {"A": "device", "B": "sham"}, "secret": "…"}')
    assert blinding_key(str(secret)) == hashlib.sha256(secret.read_bytes()).digest()
    assert blinding_key(KEY.upper()) == bytes.fromhex(KEY)
    short = tmp_path / "short"
    short.write_bytes(b"short")
    ledger = arms(steps=5)
    for told, reason in (
        ("abc", "neither a key of 64 hexadecimal digits nor a file"),
        (str(short), "a file with 16 to 1,048,576 bytes"),
        (str(tmp_path), "neither|a file with"),
        ("nul\0l", "neither"),
    ):
        with pytest.raises(TablesError, match=reason):
            blinding_key(told)
    failed = command("export", ledger, "--to", tmp_path / "tables", "--blind", "abc")
    assert failed.exit_code == 2
    assert "neither a key of 64 hexadecimal digits" in failed.output
    done = command("export", ledger, "--to", tmp_path / "tables", "--blind", secret)
    assert done.exit_code == 0
