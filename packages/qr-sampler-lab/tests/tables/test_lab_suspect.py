# SPDX-License-Identifier: Apache-2.0
"""Tokens of suspect bytes: in the tables, in reports, and out of blind tables."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.entropy import EntropyDraw
from qr_sampler.health import HealthState
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost
from qr_sampler_lab.tables.blinding import Blinding
from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.export import export_tables
from qr_sampler_lab.tables.reading import token_chunks


class Suspicious(EntropySource):
    """Delivers good bytes, and every fifth draw bytes above 127 that are called suspect."""

    name = "device"
    blocks = False

    def __init__(self) -> None:
        self._rng = np.random.default_rng(4)
        self._draws = 0

    def get_random_bytes(self, n: int) -> bytes:
        return self._rng.bytes(n)

    def draw(self, n: int) -> EntropyDraw:
        self._draws += 1
        draw = super().draw(n)
        if self._draws % 5:
            return dataclasses.replace(draw, health=HealthState.OK)
        data = bytes(byte | 128 for byte in draw.data)
        return dataclasses.replace(draw, data=data, health=HealthState.SUSPECT)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suspect")
    session = SamplingSession(
        EngineFacts(engine="toy 1.0", model="none"),
        Settings.load(entropy_source_type="device", sample_count=64, ledger_dir=folder),
        sources={"device": Suspicious()},
    )
    host = ToyHost(session, seed=2)
    for _ in range(150):
        while len(host.running) < 4:
            host.add(40)
        host.step()
    host.close()
    (path,) = folder.glob("*.jsonl")
    return Path(path)


def whole(path: Path) -> TokenChunk:
    return TokenChunk.concatenated(token_chunks([path]))


def test_tables_say_what_the_health_tests_say(ledger: Path, tmp_path: Path) -> None:
    chunk = whole(ledger)
    assert set(chunk.health.texts()) == {"ok", "suspect"}
    assert chunk.suspect.tolist() == [text == "suspect" for text in chunk.health.texts()]
    assert chunk.u[chunk.suspect].min() > 0.5
    # A chunk of a chunk, and a table of it, say the same.
    assert chunk[::2].suspect.tolist() == chunk.suspect[::2].tolist()
    export_tables([ledger], tmp_path / "tables")
    again = whole(tmp_path / "tables")
    assert again.health.texts() == chunk.health.texts()
    draws = pyarrow.parquet.read_table(tmp_path / "tables" / "draws.parquet")
    assert set(draws.column("health").to_pylist()) == {"ok", "suspect"}


def test_blind_tables_do_not(ledger: Path, tmp_path: Path) -> None:
    export_tables([ledger], tmp_path / "blind", blinding=Blinding(bytes(32)))
    table = pyarrow.parquet.read_table(tmp_path / "blind" / "tokens.parquet")
    assert "health" not in table.schema.names
    blind = whole(tmp_path / "blind")
    assert not blind.suspect.any()
    assert set(blind.health.texts()) == {None}


def test_tables_of_older_versions_have_no_suspect_tokens(ledger: Path, tmp_path: Path) -> None:
    export_tables([ledger], tmp_path / "tables")
    path = tmp_path / "tables" / "tokens.parquet"
    table = pyarrow.parquet.read_table(path).drop_columns(["health"])
    pyarrow.parquet.write_table(table, path)
    assert not whole(tmp_path / "tables").suspect.any()


def test_a_report_shows_both(ledger: Path, command: Any) -> None:
    result = command("analyze", ledger, "--json")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.output)
    chunk = whole(ledger)
    kept = chunk[chunk.emitted != 0]
    (arm,) = report["arms"]
    assert arm["suspect"] == int(kept.suspect.sum()) > 0
    rows = {
        row["test"]: row
        for row in report["tests"]
        if row["section"] == "Does it hang on suspect bytes?"
    }
    assert set(rows) == {"mean_without_flagged", "mean_with_flagged", "flagged_against_others"}
    for name, statistics in (
        ("mean_with_flagged", kept.statistic),
        ("mean_without_flagged", kept.statistic[~kept.suspect]),
    ):
        z = statistics.mean() * math.sqrt(len(statistics))
        assert rows[name]["statistic"] == pytest.approx(z, rel=1e-9)
    assert rows["mean_with_flagged"]["p_value"] < 1e-9 < rows["mean_without_flagged"]["p_value"]
    text = command("analyze", ledger).output
    assert "Does it hang on suspect bytes?" in text
    by_health = json.loads(command("analyze", ledger, "--by", "health", "--json").output)
    assert {each["name"] for each in by_health["arms"]} == {"ok", "suspect"}
