# SPDX-License-Identifier: Apache-2.0
"""Files that are no ledgers, and lines that nobody ought to write: findings, never a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qr_sampler_cli.audit.files import NotALedgerError
from qr_sampler_cli.audit.reading.lines import LONGEST_LINE, raw_lines
from qr_sampler_cli.audit.schema.fields import LARGEST

PROPERTY = settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""Of tests whose fixtures only make and judge files."""


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"\x7fELF\x00\x01", b"hello\nworld\n", b"[1]\n", b'{"a": 1}\n', b"[" * 10**5],
    ids=["empty", "blank", "binary", "text", "list", "object", "nested"],
)
def test_other_files_are_no_ledgers(tmp_path: Path, audit: Any, data: bytes) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(data)
    with pytest.raises(NotALedgerError, match="is not a ledger"):
        audit(path)


def test_other_paths_are_no_ledgers(tmp_path: Path, audit: Any) -> None:
    with pytest.raises(NotALedgerError, match="cannot be read: No such file"):
        audit(tmp_path / "absent.jsonl")
    with pytest.raises(NotALedgerError, match=r"has no \*\.jsonl"):
        audit(tmp_path)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(NotALedgerError, match="is no regular file"):
        audit(tmp_path)


def test_a_symbolic_link_is_named(run: Any, save: Any, audit: Any, tmp_path: Path) -> None:
    path = save(run().whole())
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    rungs = audit(link)
    assert rungs[1].status == "holds"
    assert "is a symbolic link to" in " ".join(rungs[1].notes)


BAD = {
    "duplicate key": (b'"kind":"token",', b'"kind":"token","u":0.5,', "has the key 'u' twice"),
    "spaced duplicate": (b'"kind":"token",', b'"kind":"token","u" :1,', "has the key 'u' twice"),
    "NaN": (b'"temperature":0.75', b'"temperature":NaN', "is no JSON"),
    "infinity": (b'"temperature":0.75', b'"temperature":1e999', "is no JSON"),
    "huge integer": (b'"rank":1', b'"rank":' + b"9" * 5_000, "rank|out of range|no JSON"),
    "large integer": (b'"rank":1', b'"rank":9223372036854775808', "rank"),
    "invalid UTF-8": (b'"kind":"token"', b'"kind":"tok\xff"', "is no JSON"),
    "surrogate": (b'"kind":"token"', b'"kind":"tok\\ud800"', "is no JSON"),
    "another type": (b'"rank":1', b'"rank":"1"', "Expected `int`, got `str`"),
    "fraction": (b'"rank":1', b'"rank":1.5', "Expected `int`, got `float`"),
    "negative": (b'"rank":1', b'"rank":-1', "Expected `int` >= 0"),
    "unknown field": (b'"rank":1', b'"rank":1,"more":1', "unknown field `more`"),
    "missing field": (b',"rank":1', b"", "missing required field `rank`"),
    "u of 1": (b'"u":', b'"u":1.0,"v":', "u|unknown"),
    "no number": (b'"n":', b'"m":', "has no number n"),
    "no digest": (b'"prev":"', b'"prev":"g', "prev is no SHA-256 digest"),
    "no kind": (b'"kind":"token"', b'"kind":1', "its kind is missing"),
    "too long": (b'"kind":"token"', b'"kind":"' + b"t" * LONGEST_LINE + b'"', "bytes; 1,048,576"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named(run: Any, chain: Any, save: Any, audit: Any, name: str) -> None:
    lines = chain(run(1).whole())
    index = next(at for at, line in enumerate(lines) if b'"kind":"token"' in line)
    old, new, message = BAD[name]
    assert old in lines[index]
    lines[index] = lines[index].replace(old, new, 1)
    whole = audit(save(lines))[1]
    (found, *_) = [failure for failure in whole.failures if failure.where.endswith(f":{index + 1}")]
    assert re.search(message, found.what)


def test_what_cannot_be_read_is_not_judged(run: Any, chain: Any, save: Any, audit: Any) -> None:
    lines = chain(run(1).whole())
    only = [line.replace(b'"rank":1', b'"rank":-1') for line in lines]
    rungs = audit(save(only))
    assert {rungs[number].status for number in (2, 3, 4)} <= {"fails", "cannot be said"}


def test_another_version_is_named(run: Any, save: Any, audit: Any) -> None:
    lines = run(1).whole()
    lines[0]["schema_version"] = 3
    assert "schema_version is 3; this audit knows 2" in audit(save(lines))[1].failures[0].what


def test_fields_out_of_order_are_named(run: Any, chain: Any, save: Any, audit: Any) -> None:
    lines = chain(run(1).whole())
    fields = json.loads(lines[-1])
    lines[-1] = json.dumps(dict(reversed(fields.items()))).encode()
    assert "does not begin with kind, n and prev" in audit(save(lines))[1].failures[0].what


def test_other_separators_end_no_line(run: Any, save: Any, audit: Any) -> None:
    lines = run(1, committed=False).whole()
    lines[0]["model"] = "a\u2028b\u0085c\x0cd\re"
    assert audit(save(lines))[1].status == "holds"


@pytest.mark.parametrize(
    "told", [[-1, 2], [-LARGEST, LARGEST], {"count": 5000, "sha256": "ab" * 32}]
)
def test_a_request_may_call_anything_a_stop_token(
    run: Any, save: Any, audit: Any, told: object
) -> None:
    lines = run(1).whole()
    for line in lines:
        if line["kind"] == "sequence":
            line["stop"]["token_ids"] = told
    assert audit(save(lines))[1].status == "holds"


def test_spaces_in_json_are_no_failure(run: Any, audit: Any, tmp_path: Path) -> None:
    path = tmp_path / "spaced.jsonl"
    prev, text = "0" * 64, ""
    for n, line in enumerate(run(1).whole()[:2]):
        text += json.dumps({"kind": line["kind"], "n": n, "prev": prev, **line}) + "\n"
        prev = hashlib.sha256(text.splitlines()[-1].encode()).hexdigest()
    path.write_text(text)
    assert audit(path)[1].failures == []


def test_at_most_twenty_failures_are_listed(run: Any, chain: Any, save: Any, audit: Any) -> None:
    lines = chain(run(1).whole(sequences=6, steps=12))
    whole = audit(save([line.replace(b'"n":', b'"m":') for line in lines]))[1]
    assert len(whole.failures) == 20
    assert whole.failed >= len(lines)


def test_lines_are_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        for _ in range(48):
            file.write(b"x" * 2**20)
    tracemalloc.start()
    try:
        (line,) = raw_lines(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (line.size, line.data, line.whole) == (48 * 2**20, b"", False)
    assert peak < 8 * 2**20


@PROPERTY
@given(data=st.binary(max_size=3_000_000), cut=st.integers(1, 100))
def test_lines_are_those_between_newlines(tmp_path: Path, data: bytes, cut: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(data * cut)
    *whole, rest = (data * cut).split(b"\n")
    assert [line.data for line in raw_lines(path)] == [*whole, *([rest] if rest else [])]


def test_torn_lines_stand_before_a_gap_only(run: Any, chain: Any, save: Any, audit: Any) -> None:
    torn = b'{"kind":"token","n":2,"pre'
    made = run(1)
    made.gap({}, torn_bytes=len(torn))
    lines = chain(made.whole())
    rungs = audit(save([*lines[:2], torn, *lines[2:]]))
    assert [rungs[number].status for number in (1, 2, 3, 4)] == ["holds"] * 4
    assert audit(save([*lines[:2], torn + b"x", *lines[2:]]))[1].status == "fails"
    assert audit(save([*lines[:4], torn, *lines[4:]]))[1].status == "fails"
    assert audit(save(lines))[1].status == "fails"


def test_a_torn_line_may_lack_nothing_but_its_newline(
    run: Any, chain: Any, save: Any, audit: Any
) -> None:
    whole = chain(run(1).whole())
    torn = whole[2]
    made = run(1)
    made.gap({}, torn_bytes=len(torn))
    rungs = audit(save([*whole[:2], torn, *chain(made.whole())[2:]]))
    assert [rungs[number].status for number in (1, 2, 3, 4)] == ["holds"] * 4


def test_what_gaps_tell_of_cannot_be_said(run: Any, save: Any, audit: Any) -> None:
    made = run(1)
    row = made.begin("sequence")
    for _ in range(3):
        made.step([row], discarded=False)
    del made.lines[-2:]
    made.gap({"draw": 1, "token": 1, "sequence": 1})
    made.step([row], discarded=False)
    made.end(row)
    lost = made.begin("lost")
    del made.lines[-1]
    made.step([lost], discarded=False)
    made.end(lost)
    made.lines.append(made._clock())
    made.close(lost=3)
    rungs = audit(save(made.lines))
    assert rungs[1].status == "holds"
    assert (rungs[2].status, rungs[4].status) == ("cannot be said", "cannot be said")
    # More is missing than the gap tells of.
    fewer = [line for line in made.lines if line.get("position") != 3]
    assert audit(save(fewer))[2].status == "fails"


@pytest.mark.parametrize("lost", ["token", "discard"])
def test_one_lost_line_explains_all_that_is_missed_of_it(
    run: Any, save: Any, audit: Any, lost: str
) -> None:
    made = run(1, committed=False)
    rows = [made.begin("first"), made.begin("second")]
    made.step(rows, discarded=True)
    made.lines.remove(next(line for line in made.lines if line["kind"] == lost))
    made.gap({lost: 1})
    made.step(rows, discarded=False)
    made.unchosen(rows[0], "forced")
    made.lines.pop()
    made.gap({"forced": 1})
    made.step(rows, discarded=False)
    for row in rows:
        made.end(row)
    made.lines.append(made._clock())
    made.close(lost=2)
    rungs = audit(save(made.lines))
    # A position and bytes of a draw are missing, and both are those of the lost line.
    assert [rungs[number].status for number in (1, 2)] == ["holds", "cannot be said"]
    fewer = [line for line in made.lines if line["kind"] != "token"]
    assert audit(save(fewer))[2].status == "fails"


@pytest.mark.parametrize("kind", ["token", "forced", "undecided"])
def test_only_an_emission_says_what_was_not_emitted(
    run: Any, save: Any, audit: Any, kind: str
) -> None:
    lines = run(1).of_every_kind()
    next(line for line in lines if line["kind"] == kind)["emitted"] = False
    assert "emitted is true or null" in audit(save(lines))[1].failures[0].what


def test_a_line_with_a_fault_is_not_judged(run: Any, chain: Any, save: Any, audit: Any) -> None:
    lines = chain(run(1).whole())
    index = next(at for at, line in enumerate(lines) if b'"kind":"draw"' in line)
    lines[index] = lines[index].replace(b'"bytes":', b'"bytes":1,"bytes":')
    assert "what is in lines that are no records" in audit(save(lines))[2].unsaid


def test_bytes_are_not_accounted_for_by_lines_without_any(run: Any, save: Any, audit: Any) -> None:
    lines = run(1).whole()
    index, first = next(
        (at, line) for at, line in enumerate(lines) if line["kind"] == "discard" and line["offset"]
    )
    lines.insert(index, {**first, "block_bytes": 0})
    failures = audit(save(lines))[2].failures
    assert [failure.what for failure in failures] == [f"it has no bytes of draw {first['draw']}"]


def test_memory_does_not_grow_with_the_lengths_of_kinds(run: Any, save: Any, audit: Any) -> None:
    made = run(1)
    for index in range(100):
        made.add(f"{index}{'x' * 100_000}")
    path = save(made.lines)
    del made
    tracemalloc.start()
    try:
        assert audit(path)[1].failures == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_more_unused_draws_than_are_remembered(
    run: Any, save: Any, audit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qr_sampler_cli.audit.rungs.draw_accounts._MOST_OPEN", 3)
    made = run(1)
    row = made.begin("sequence")
    for _ in range(5):
        made.step([row], discarded=False)
    unused = [line for line in made.lines if line["kind"] != "token"]
    complete = audit(save(unused))[2]
    assert complete.unsaid["what became of bytes of more draws than are remembered"].count == 2
