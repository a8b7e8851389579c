# SPDX-License-Identifier: Apache-2.0
"""Chained files of a laboratory: whole or refused, whatever is done to them."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_lab.experiments.files.chained_record import ChainedRecord, Entry
from qr_sampler_lab.experiments.files.errors import RecordError, StudyError
from qr_sampler_lab.experiments.files.journal import Journal
from qr_sampler_lab.experiments.files.locking import locked, locked_directory
from qr_sampler_lab.experiments.files.register import Register


def written(directory: Path, lines: int = 4) -> ChainedRecord:
    """Returns a file of so many lines."""
    record = ChainedRecord(directory / "record.jsonl")
    record.create("first", {"text": "begin"})
    for number in range(1, lines):
        record.append("mark", {"text": f"line {number}"})
    return record


def test_lines_have_their_place_and_all_clocks(tmp_path: Path) -> None:
    record = written(tmp_path)
    entries = list(record.entries())
    assert [(entry.kind, entry.n) for entry in entries] == [
        ("first", 0),
        ("mark", 1),
        ("mark", 2),
        ("mark", 3),
    ]
    clocks = {"monotonic_ns", "boottime_ns", "wall_time_ns", "synchronized", "boot_id"}
    assert all(entry.values.keys() >= clocks for entry in entries)
    assert stat.S_IMODE(record.path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["record.jsonl"]


def test_every_change_before_the_last_line_is_found(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("changed")
    record = written(directory)
    data = record.path.read_bytes()
    end = data.rindex(b"\n", 0, -1)

    @given(place=st.integers(0, end), flip=st.integers(1, 255))
    def check(place: int, flip: int) -> None:
        changed = bytearray(data)
        changed[place] ^= flip
        record.path.write_bytes(changed)
        with pytest.raises(RecordError, match=r"record.jsonl:[1-4]"):
            list(record.entries())

    check()


def test_every_truncation_loses_only_lines_at_the_end(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    record = written(directory)
    data = record.path.read_bytes()
    whole = [entry.head for entry in record.entries()]

    @given(st.integers(1, len(data)))
    def check(size: int) -> None:
        record.path.write_bytes(data[:size])
        again = ChainedRecord(record.path)
        left = data.count(b"\n", 0, size)
        assert [entry.head for entry in again.entries()] == whole[:left]
        assert again.torn_bytes() == size - (data.rfind(b"\n", 0, size) + 1)
        if left:
            again.append("mark", {"text": "afterwards"})
            kinds = [entry.kind for entry in again.entries()]
            torn = data[size - 1 : size] != b"\n"
            assert kinds[left:] == ["gap", "mark"] if torn else ["mark"]
        else:
            with pytest.raises(RecordError, match="first line is missing"):
                again.append("mark", {"text": "afterwards"})

    check()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"kind":"mark"}\n', "does not follow"),
        (b"not JSON\n", "no JSON"),
        (b"[]\n", "no JSON object"),
        (b'{"kind":"a","kind":"a"}\n', "twice"),
        (b"x" * 2_000_000 + b"\n", "more than 1,048,576 bytes"),
        (b"\xff\xfe\n", "no JSON"),
        (b"\n", "no JSON"),
    ],
    ids=["stranger", "text", "list", "keys", "long", "binary", "empty"],
)
def test_lines_that_are_none(tmp_path: Path, line: bytes, reason: str) -> None:
    record = written(tmp_path)
    with record.path.open("ab") as file:
        file.write(line)
    with pytest.raises(RecordError, match=f"record.jsonl:5: .*{reason}"):
        list(record.entries())
    with pytest.raises(RecordError):
        record.append("mark", {"text": "x"})


def test_kinds_are_texts(tmp_path: Path) -> None:
    record = ChainedRecord(tmp_path / "record.jsonl")
    record.path.write_text('{"kind":1,"n":0,"prev":"' + "0" * 64 + '","seal":null}\n')
    with pytest.raises(RecordError, match="its kind is missing"):
        list(record.entries())


def test_what_cannot_be_a_line_is_refused(tmp_path: Path) -> None:
    record = written(tmp_path)
    for fields, reason in (
        ({"n": 7}, "the field n of a line is given"),
        ({"boot_id": "x"}, "boot_id"),
        ({"u": float("nan")}, "no number"),
        ({"u": object()}, "cannot be written"),
        ({"text": "x" * 2_000_000}, "are the most"),
    ):
        with pytest.raises(RecordError, match=reason):
            record.append("mark", fields)
    assert len(list(record.entries())) == 4


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be opened"):
        ChainedRecord(tmp_path / "none.jsonl").append("mark", {})
    with pytest.raises(RecordError, match="cannot be read"):
        list(ChainedRecord(tmp_path / "none.jsonl").entries())
    with pytest.raises(RecordError, match="cannot be opened"):
        ChainedRecord(tmp_path / "no" / "record.jsonl").create("first", {})
    record = written(tmp_path)
    with pytest.raises(RecordError, match="cannot be made"):
        record.create("first", {})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecordError, match="no regular file"):
        ChainedRecord(tmp_path / "pipe").append("mark", {})
    with pytest.raises(RecordError, match="cannot be opened"), locked_directory(tmp_path / "none"):
        pass


def test_others_are_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    record = written(tmp_path)
    impatient = ChainedRecord(record.path, timeout_s=0.05)
    with locked(record.path, create=False):
        with pytest.raises(RecordError, match=r"has held .* for 0.05 s"):
            impatient.append("mark", {})
        waiting = threading.Thread(target=record.append, args=("mark", {"text": "late"}))
        waiting.start()
    waiting.join(10)
    assert len(list(record.entries())) == 5


def test_a_file_that_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    fcntl = pytest.importorskip("fcntl", reason="is about POSIX")
    record = written(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RecordError, match="cannot be locked"):
        record.append("mark", {})


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = written(tmp_path)
    before = record.path.read_bytes()
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[: len(data) // 2])

    def none(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for disk, reason in ((half, "make room"), (none, "No space left")):
        monkeypatch.setattr(os, "write", disk)
        with pytest.raises(RecordError, match=reason):
            record.append("mark", {"text": "lost"})
        assert record.path.read_bytes() == before
    monkeypatch.undo()
    record.append("mark", {"text": "kept"})


def test_lines_are_judged_once_and_anew_where_the_file_is_another(tmp_path: Path) -> None:
    record = written(tmp_path)
    seen: list[tuple[int, bool]] = []

    def note(news: list[Entry], anew: bool) -> None:
        seen.append((len(news), anew))

    patient = ChainedRecord(record.path)
    patient.append("mark", {}, allowed=note)
    patient.append("mark", {}, allowed=note)
    record.append("mark", {})
    patient.append("mark", {}, allowed=note)
    assert seen == [(4, True), (1, False), (2, False)]
    data = record.path.read_bytes()
    record.path.write_bytes(data + b"{}\n")
    for _ in range(2):
        with pytest.raises(RecordError, match=":9: it does not follow"):
            patient.append("mark", {}, allowed=note)
    record.path.write_bytes(data + b'{"torn')
    assert patient.append("mark", {}, allowed=note).n == 9
    patient.append("mark", {}, allowed=note)
    assert seen[3:] == [(1, False), (2, False)]
    assert [entry.n for entry in record.entries()] == list(range(11))


def test_lines_that_a_process_has_seen_do_not_go_unnoticed(tmp_path: Path) -> None:
    record = written(tmp_path)
    patient = ChainedRecord(record.path)
    patient.append("mark", {"text": "inconvenient"})
    data = record.path.read_bytes()
    record.path.write_bytes(data[: data.rindex(b"\n", 0, -1) + 1])
    for _ in range(2):
        with pytest.raises(RecordError, match="has lost lines"):
            patient.append("mark", {"text": "the next one"})
    record.path.unlink()
    with pytest.raises(RecordError, match="cannot be opened"):
        patient.append("mark", {})
    record.path.write_bytes(data)
    patient.append("mark", {"text": "the next one"})
    assert len(list(record.entries())) == 6


def test_the_order_of_events(tmp_path: Path) -> None:
    register = Register(tmp_path / "register.jsonl")
    seal = "5e" * 32
    (tmp_path / "study").mkdir()
    journal = Journal(tmp_path / "study" / "journal.jsonl")
    journal.create(seal, register.seal(seal, "study", tmp_path / "study"))
    journal.ordered("secret", commitment="c")
    with pytest.raises(StudyError, match="has not begun"):
        journal.session_begun(0)
    journal.begun(engine="toy")
    with pytest.raises(StudyError, match="'begun' already"):
        journal.begun()
    with pytest.raises(StudyError, match="never begun"):
        journal.session_ended(0, requests={}, tokens={})
    journal.session_begun(0)
    journal.resumed()
    journal.session_ended(0, requests={"arm-1": 1}, tokens={"arm-1": 20})
    with pytest.raises(StudyError, match="the study is open"):
        journal.unblinded({}, {})
    end = journal.finished()
    with pytest.raises(StudyError, match="not as 'lost'"):
        register.end(seal, "lost", "", end)
    with pytest.raises(StudyError, match="does not have the study"):
        register.end("00" * 32, "finished", "", end)
    register.end(seal, "finished", "", end)
    with pytest.raises(StudyError, match="has this seal already"):
        register.seal(seal, "study", tmp_path / "study")
    journal.mark("after the end")
    heads = {"a.jsonl": {"lines": 3, "head": "ab"}}
    journal.unblinded({"arm-1": "device"}, heads, alias_key="00")
    with pytest.raises(StudyError, match="happens once"):
        journal.unblinded({}, {})
    standing = journal.standing()
    assert (standing.ended, standing.unblinded, standing.resumed) == ("finished", True, 1)
    assert (standing.sessions_begun, standing.sessions_ended, standing.marks) == (1, 1, 1)
    assert standing.tokens == {"arm-1": 20}
    assert journal.entries()[-1].values["ledgers"] == heads
