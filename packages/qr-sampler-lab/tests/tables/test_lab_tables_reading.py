# SPDX-License-Identifier: Apache-2.0
"""Columns are what the records say, in the order of their time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler.records.reader import read_ledger
from qr_sampler.records.redaction import redact
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.audit.reading.lines import NotALedgerError
from qr_sampler_lab.tables.columns import COLUMNS, LABELS, TokenChunk
from qr_sampler_lab.tables.errors import OrderError, TablesError
from qr_sampler_lab.tables.ledgers import LedgerReading
from qr_sampler_lab.tables.lines import FileLines
from qr_sampler_lab.tables.reading import token_chunks

VERSION_1 = Path(__file__).resolve().parents[3] / "qr-sampler/tests/audit/data/ledger_v1.jsonl"


def whole(*paths: Path, **options: Any) -> TokenChunk:
    """Returns all tokens of ledgers as one chunk."""
    return TokenChunk.concatenated(token_chunks(paths, **options))


def records(path: Path) -> list[dict[str, Any]]:
    """Returns the tokens of a ledger in the order of time, as core's reader knows them."""
    told = [line for line in read_ledger(path) if line["kind"] == "token"]
    return sorted(told, key=lambda line: (line["t_received_ns"], line.get("offset") or 0))


SAME = {
    "received_ns": "t_received_ns",
    "request_ns": "t_request_ns",
    "device": "device_id",
    **{
        name: name
        for name in (
            *("u", "statistic", "block_bytes", "block_sum", "block_ones", "temperature"),
            *("entropy_nats", "varentropy_nats2", "probability", "rank", "candidates"),
            *("token_id", "position", "fallback", "jit", "source", "amplifier", "condition"),
            *("trial", "baseline", "role", "outcome"),
        )
    },
}
"""By column, the field of the record that it is."""


def told(chunk: TokenChunk, name: str) -> list[Any]:
    column = getattr(chunk, name)
    values: list[Any] = column.texts() if name in LABELS else column.tolist()
    return values


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_columns_are_the_fields_of_records(played: Any, seed: int, overlapping: bool) -> None:
    path = played(seed=seed, overlapping=overlapping)
    chunk, expected = whole(path), records(path)
    assert len(chunk) == len(expected) > 100
    for column, field in SAME.items():
        assert told(chunk, column) == [line[field] for line in expected], column
    assert told(chunk, "lattice_step") == [line["lattice_step"] for line in expected]
    assert any(chunk.fallback)
    names = [line["sequence"] for line in expected]
    assert len(dict(zip(names, told(chunk, "sequence"), strict=True))) == len(set(names))
    assert len(set(zip(names, told(chunk, "sequence"), strict=True))) == len(set(names))


@pytest.mark.parametrize("seed", [1, 4])
def test_later_lines_say_what_was_emitted(played: Any, lines: Any, seed: int) -> None:
    path = played(seed=seed, overlapping=True)
    open_ones: dict[tuple[str, int], int] = {}
    expected: dict[int, int] = {}
    for line in lines(path):
        place = (line.get("sequence"), line.get("position"))
        if line["kind"] == "token":
            expected[line["n"]] = -1 if line.get("emitted", True) is None else 1
            if expected[line["n"]] == -1:
                open_ones[place] = line["n"]
        elif line["kind"] == "emission" and place in open_ones:
            expected[open_ones.pop(place)] = int(line["emitted"])
    emitted = whole(path).emitted.tolist()
    assert sorted(emitted) == sorted(expected.values())
    assert {0, 1} <= set(emitted)


def test_the_order_is_that_of_time(played: Any) -> None:
    path = played(overlapping=True)
    chunk = whole(path)
    keys = list(zip(chunk.received_ns.tolist(), chunk.offset.tolist(), strict=True))
    assert keys == sorted(keys)
    in_file = [line["t_received_ns"] for line in read_ledger(path) if line["kind"] == "token"]
    assert in_file != sorted(in_file), "the ledger was in order, so nothing was shown"


def test_small_windows_give_the_same_or_say_that_they_are_too_small(
    played: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = played(overlapping=True)
    expected = whole(path).u.tolist()
    monkeypatch.setattr("qr_sampler_lab.tables.rows._PAUSE", 7)
    monkeypatch.setattr("qr_sampler_lab.tables.ledgers.CHUNK", 5)
    assert whole(path, window=64).u.tolist() == expected
    with pytest.raises(OrderError, match=r"more than 1 tokens away .* larger window, such as 8"):
        whole(path, window=1)


def test_runs_of_one_clock_are_merged_and_labels_keep_their_codes(
    tmp_path: Path, host: Any
) -> None:
    hosts = [host(tmp_path / f"dp{index}", seed=index) for index in range(3)]
    for step in range(40):
        for index, each in enumerate(hosts):
            while len(each.running) < 2:
                each.add(5, condition=f"arm {index}", trial=str(step))
            each.step()
    for each in hosts:
        each.close()
    folders = [tmp_path / f"dp{index}" for index in range(3)]
    chunk = whole(*folders)
    assert np.all(np.diff(chunk.received_ns) >= 0)
    assert len(set(np.flatnonzero(np.diff(chunk.run.codes)).tolist())) > 60
    alone = [whole(folder) for folder in folders]
    for name in ("arm 0", "arm 1", "arm 2"):
        mine = np.array(chunk.condition.texts()) == name
        (single,) = [each for each in alone if each.condition.texts()[0] == name]
        assert chunk[mine].u.tolist() == single.u.tolist()
    assert len(set(chunk.sequence.tolist())) == sum(len(set(a.sequence.tolist())) for a in alone)


def test_runs_of_other_clocks_follow_each_other(played: Any, lines: Any, tmp_path: Path) -> None:
    paths = [played("first", seed=1), played("second", seed=2)]
    path = tmp_path / "another boot.jsonl"
    path.write_bytes(paths[0].read_bytes().replace(b'"boot_id":"', b'"boot_id":"other ', 1))
    chunk = whole(paths[1], path)
    runs = np.flatnonzero(np.diff(chunk.run.codes))
    assert len(runs) == 1
    assert chunk.run.texts()[0] == lines(path)[0]["run_id"]


def test_continued_files_are_one_run(tmp_path: Path, host: Any) -> None:
    made = host(tmp_path / "run", ledger_max_bytes=2**16)
    for _ in range(120):
        while len(made.running) < 4:
            made.add(50)
        made.step()
        made.flush()
    made.close()
    files = sorted((tmp_path / "run").glob("*.jsonl"))
    assert len(files) > 2
    chunk = whole(tmp_path / "run")
    assert len(chunk) == 480
    reading = LedgerReading([tmp_path / "run"])
    assert sum(len(each) for each in reading.chunks()) == 480
    assert len(set(chunk.sequence.tolist())) == len(made.requests)
    assert [run.unplaced for run in reading.runs] == [0]


def test_a_growing_ledger_is_read_to_its_last_newline(played: Any, tmp_path: Path) -> None:
    data = played().read_bytes()
    count = data.count(b'"kind":"token"')
    last = data.rindex(b'{"kind":"token"')
    path = tmp_path / "growing.jsonl"
    path.write_bytes(data[: last + 50])
    assert len(whole(path)) == count - 1
    path.write_bytes(data)
    assert len(whole(path)) == count


def test_torn_lines_and_strange_ones_are_counted(played: Any, tmp_path: Path) -> None:
    whole_lines = played().read_bytes().split(b"\n")[:-1]
    gap = b'{"kind":"gap","n":7,"prev":"' + b"0" * 64 + b'","reason":"refused","missing":{},'
    gap += b'"since_wall_ns":null,"torn_bytes":%d,"wall_time_ns":1}'
    torn = next(line for line in whole_lines if line.startswith(b'{"kind":"token"'))
    weather = b'{"kind":"weather","n":9,"prev":"' + b"0" * 64 + b'","degrees":21}'
    path = tmp_path / "strange.jsonl"
    added = [torn, gap % len(torn), b"\xff\xfe", weather, torn.replace(b'"u":0', b'"u":7')]
    path.write_bytes(b"\n".join([*whole_lines, *added, b""]))
    reading = LedgerReading([path])
    # The torn copy is one, as is the line whose u is none.
    assert sum(len(chunk) for chunk in reading.chunks()) == len(records(path)) - 2
    (only,) = reading.runs[0].readings
    assert only.unreadable == 2
    assert only.lines == len(whole_lines) + 5


def test_tokens_without_their_draw_are_placed_behind_the_one_before(
    played: Any, tmp_path: Path
) -> None:
    kept, dropped = [], 0
    for line in played(sample_count=16).read_bytes().split(b"\n"):
        if line.startswith(b'{"kind":"draw"') and b'"draw":5,' in line:
            dropped += 1
            continue
        kept.append(line)
    assert dropped == 1
    path = tmp_path / "holes.jsonl"
    path.write_bytes(b"\n".join(kept))
    reading = LedgerReading([path])
    chunk = TokenChunk.concatenated(reading.chunks())
    (run,) = reading.runs
    assert run.unplaced == int(np.sum(chunk.draw == 5)) > 0
    assert set(chunk[chunk.draw == 5].source.texts()) == {None}


@pytest.mark.skipif(not VERSION_1.exists(), reason="the file is in the repository only")
def test_ledgers_of_the_first_version_have_the_same_columns() -> None:
    chunk, expected = whole(VERSION_1), records(VERSION_1)
    assert len(chunk) == len(expected) > 20
    for column, field in SAME.items():
        assert told(chunk, column) == [
            line.get(field) or told(chunk, column)[index]
            if field in ("baseline", "role", "outcome")
            else line[field]
            for index, line in enumerate(expected)
        ], column


def test_a_chunk_is_what_its_columns_are(played: Any) -> None:
    chunk = whole(played())
    assert all(len(getattr(chunk, name)) == len(chunk) for name in COLUMNS)
    some = chunk[chunk.fallback]
    assert set(some.source.texts()) == {"backup"}
    assert math.isclose(float(some.u.sum()), float(chunk.u[chunk.fallback].sum()))
    assert TokenChunk.concatenated([some, chunk[:3]]).u.tolist() == [
        *some.u.tolist(),
        *chunk.u[:3].tolist(),
    ]


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x00\x01", b"hello\nworld\n", b"[1]\n"])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(data)
    with pytest.raises(NotALedgerError, match="is not a ledger"):
        whole(path)


def test_what_is_remembered_has_bounds(played: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = played(overlapping=True)
    with monkeypatch.context() as few:
        few.setattr("qr_sampler_lab.tables.lines.MOST_EMISSIONS", 1)
        with pytest.raises(TablesError, match="more than 1 emission lines"):
            whole(path)
    monkeypatch.setattr("qr_sampler_lab.tables.chunking.MOST_NAMES", 2)
    with pytest.raises(TablesError, match="'trial' has more than 2 different texts"):
        whole(path)


def test_paths_of_the_command_are_those_of_the_audit(played: Any) -> None:
    path = played()
    assert [len(files) for files in ledgers_of([path.parent])] == [1]
    assert len(whole(path.parent)) == len(whole(path))


def test_lines_without_text_have_all_other_columns(played: Any, tmp_path: Path) -> None:
    path = played(overlapping=True)
    redacted = tmp_path / "redacted.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1]
    redacted.write_bytes(b"".join(line + b"\n" for line in redact(lines)))
    chunk, expected = whole(redacted), whole(path)
    for name in set(COLUMNS) - {"token_id"}:
        assert np.array_equal(told(chunk, name), told(expected, name)), name
    assert set(chunk.token_id.tolist()) == {-1}
    heads = []
    for each in (path, redacted):
        (file,) = ledgers_of([each])[0]
        reading = FileLines(file)
        assert list(reading)
        assert reading.unreadable == 0
        heads.append(reading.head)
    assert heads[0] == heads[1]
