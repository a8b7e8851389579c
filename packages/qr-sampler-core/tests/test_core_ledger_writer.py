# SPDX-License-Identifier: Apache-2.0
"""Whatever a disk does to a ledger: what is there is chained, and what is not there is counted."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler.records.chain import ZERO_HEAD, Item, line_of
from qr_sampler.records.files import append_file, chained_file, refusals
from qr_sampler.records.files.writer import Continues, LedgerWriter
from qr_sampler.testing import chained_lines, check_files

PLENTY = 10**9


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Hypothesis has a thousand disks refuse, each of which is reported."""
    logger = logging.getLogger("qr_sampler.records.ledger")
    logger.addFilter(_nothing)
    yield
    logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


class Disk:
    """Takes a number of bytes, in pieces, and then says what a full disk says."""

    def __init__(self) -> None:
        self.room = PLENTY
        self.piece = PLENTY
        self.refusal = errno.ENOSPC

    @contextmanager
    def in_place(self) -> Iterator[None]:
        disk = self

        class File(FileIO):
            def write(self, data: Any) -> int:
                size = min(len(data), disk.room, disk.piece)
                if not size and len(data):
                    raise OSError(disk.refusal, os.strerror(disk.refusal))
                disk.room -= size
                return super().write(data[:size])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(append_file, "FileIO", File)
            yield


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    with disk.in_place():
        yield disk


def header(continues: Continues | None) -> list[Item]:
    return [("genesis", {"run_id": "run", "continues": continues}), ("clock", {})]


def notes(first: int, count: int) -> list[Item]:
    return [("note", {"number": number}) for number in range(first, first + count)]


def numbers_in(lines: list[dict[str, Any]]) -> list[int]:
    return [line["number"] for line in lines if line["kind"] == "note"]


def missing_in(lines: list[dict[str, Any]]) -> Counter[str]:
    return sum((Counter(line["missing"]) for line in lines if line["kind"] == "gap"), Counter())


def put(writer: LedgerWriter, items: list[Item]) -> None:
    writer.prepare()
    writer.write(items)


def outline(lines: list[dict[str, Any]]) -> list[object]:
    return [line.get("number", line.get("reason", line["kind"])) for line in lines]


def test_a_ledger_is_begun_written_and_ended(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.jsonl"
    writer = LedgerWriter(path, header)
    writer.begin()
    assert outline(chained_lines(path)) == ["genesis", "clock"]
    put(writer, notes(0, 2))
    put(writer, notes(2, 1))
    writer.end()
    lines = chained_lines(path)
    assert outline(lines) == ["genesis", "clock", 0, 1, 2, "close"]
    assert lines[0]["prev"] == ZERO_HEAD
    assert lines[0]["continues"] is None
    close = lines[-1]
    assert (close["lost"], close["continued_in"]) == (0, None)
    assert close["totals"] == {"genesis": 1, "clock": 1, "note": 3}


def test_nothing_follows_the_end_but_another_file(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "run.jsonl", header)
    put(writer, notes(0, 1))
    writer.end()
    put(writer, [])
    writer.end()
    assert len(list(tmp_path.iterdir())) == 1, "nor a file without a reason"
    put(writer, notes(1, 1))
    writer.end()
    first, second = sorted(tmp_path.iterdir())
    lines = check_files([first, second])
    assert outline(lines) == ["genesis", "clock", 0, "close", "genesis", "clock", 1, "close"]
    assert lines[4]["continues"] == {"file": "run.jsonl", "lines": 4, "head": lines[4]["prev"]}


def test_a_full_file_names_the_one_that_goes_on(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "run.jsonl", header, max_bytes=2_000)
    for number in range(50):
        put(writer, notes(number, 1))
    writer.end()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 2
    assert numbers_in(check_files(files)) == list(range(50))
    for file, after in zip(files, [*files[1:], None], strict=True):
        lines = chained_lines(file)
        assert lines[-1]["continued_in"] == (after and after.name)
        assert file.stat().st_size < 3_000
    named = [(chained_lines(file)[0]["continues"] or {}).get("file") for file in files]
    assert named == [None, *(file.name for file in files[:-1])]


def test_a_header_alone_fills_no_file(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "run.jsonl", header, max_bytes=1)
    writer.begin()
    for _ in range(5):
        put(writer, [])
    assert len(list(tmp_path.iterdir())) == 1
    for number in range(3):
        put(writer, notes(number, 1))
    writer.end()
    assert numbers_in(check_files(sorted(tmp_path.iterdir()))) == [0, 1, 2]


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    taken = tmp_path / "run_0002.jsonl"
    writer = LedgerWriter(tmp_path / "run.jsonl", header, max_bytes=1)
    put(writer, notes(0, 1))
    taken.write_bytes(b"somebody else's\n")
    put(writer, notes(1, 1))
    writer.end()
    assert taken.read_bytes() == b"somebody else's\n"
    files = [tmp_path / "run.jsonl", tmp_path / "run_0003.jsonl"]
    assert numbers_in(check_files(files)) == [0, 1]


def test_a_name_is_used_once_though_its_file_has_been_put_away(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "run.jsonl", header, max_bytes=1)
    archive = tmp_path / "archive"
    archive.mkdir()
    for number in range(6):
        put(writer, notes(number, 1))
        for file in tmp_path.glob("*.jsonl"):
            if b'"kind":"close"' in file.read_bytes():
                assert not (archive / file.name).exists()
                file.rename(archive / file.name)
    writer.end()
    assert numbers_in(check_files([*sorted(archive.iterdir()), writer.path])) == [*range(6)]


@pytest.mark.parametrize("content", [b"somebody else's\n", b'{"kind":"genesis"}\n', b"\x00\xff"])
def test_a_file_without_a_chain_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    writer = LedgerWriter(path, header)
    put(writer, notes(0, 1))
    writer.end()
    assert path.read_bytes() == content
    assert numbers_in(check_files([tmp_path / "run_0002.jsonl"])) == [0]


def test_every_byte_may_be_the_last_that_a_disk_takes(tmp_path: Path, disk: Disk) -> None:
    whole = LedgerWriter(tmp_path / "whole.jsonl", header)
    put(whole, notes(0, 2))
    put(whole, notes(2, 2))
    whole.release()
    size = whole.path.stat().st_size
    for room in range(size + 1):
        path = tmp_path / f"{room:04}.jsonl"
        writer = LedgerWriter(path, header)
        disk.room = room
        put(writer, notes(0, 2))
        put(writer, notes(2, 2))
        assert writer.refuses == (room < size)
        chained_lines(path, torn_end=True)
        disk.room = PLENTY
        put(writer, notes(4, 1))
        assert not writer.refuses
        writer.end()
        lines = chained_lines(path)
        assert len(numbers_in(lines)) + missing_in(lines)["note"] == 5
        assert missing_in(lines).total() == writer.lost == lines[-1]["lost"]
        assert outline(lines)[:2] == ["genesis", "clock"]
        assert 4 in numbers_in(lines)


@pytest.mark.parametrize("refusal", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_what_a_disk_refuses_can_wait(tmp_path: Path, disk: Disk, refusal: int) -> None:
    writer = LedgerWriter(tmp_path / "run.jsonl", header, held=3)
    disk.room, disk.refusal = 300, refusal
    for number in range(10):
        put(writer, notes(number, 1))
    assert writer.refuses
    disk.room = PLENTY
    put(writer, [])
    put(writer, notes(10, 1))
    writer.end()
    lines = chained_lines(writer.path)
    numbers = numbers_in(lines)
    assert numbers == [*range(len(numbers) - 1), 10]
    assert missing_in(lines) == {"note": 11 - len(numbers)}
    assert len(numbers) >= 4
    assert writer.lost == 11 - len(numbers)


@pytest.mark.parametrize("held", [0, 99])
def test_an_end_that_is_refused_half_way_is_finished_before_the_next_file_begins(
    tmp_path: Path, disk: Disk, held: int
) -> None:
    """So what is to be written next is made for the file that it will be in."""
    begun: list[Continues | None] = []

    def counted(continues: Continues | None) -> list[Item]:
        begun.append(continues)
        return header(continues)

    writer = LedgerWriter(tmp_path / "run.jsonl", counted, max_bytes=200, held=held)
    put(writer, notes(0, 3))
    disk.room = 20
    writer.prepare()
    assert writer.refuses
    assert len(begun) == 2, "known before lines are made"
    writer.write(notes(3, 1))
    disk.room = PLENTY
    put(writer, notes(4, 1))
    assert len(begun) == 2
    writer.end()
    lines = check_files(sorted(tmp_path.iterdir()))
    assert numbers_in(lines) == ([0, 1, 2, 3, 4] if held else [0, 1, 2, 4])
    assert missing_in(lines)["note"] == (not held)


def test_a_file_with_an_unfinished_end_may_be_removed(tmp_path: Path, disk: Disk) -> None:
    writer = LedgerWriter(tmp_path / "run.jsonl", header, max_bytes=200)
    put(writer, notes(0, 3))
    disk.room = 20
    put(writer, [])
    disk.room = PLENTY
    (tmp_path / "run.jsonl").unlink()
    put(writer, notes(3, 1))
    writer.end()
    lines = chained_lines(writer.path)
    assert outline(lines) == ["genesis", "clock", "removed", 3, "close"]
    assert not writer.refuses


def test_a_disk_that_refuses_is_asked_with_one_line(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(kind: str, *rest: Any) -> bytes:
        made.append(kind)
        return line_of(kind, *rest)

    monkeypatch.setattr(chained_file, "line_of", counted)
    writer = LedgerWriter(tmp_path / "run.jsonl", header, held=99)
    put(writer, notes(0, 1))
    disk.room = 0
    put(writer, notes(1, 50))
    made.clear()
    for _ in range(10):
        put(writer, [])
    assert len(made) == 10
    disk.room = PLENTY
    put(writer, [])
    writer.end()
    assert numbers_in(chained_lines(writer.path)) == [*range(51)]


def test_a_disk_that_cannot_say_that_it_has_everything_is_asked_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fails, asked = True, 0

    def sync(descriptor: int) -> None:
        nonlocal asked
        asked += 1
        if fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(append_file, "_sync_data", sync)
    writer = LedgerWriter(tmp_path / "run.jsonl", header)
    put(writer, notes(0, 1))
    writer.sync()
    for _ in range(3):
        put(writer, [])
        assert writer.refuses, "a write that succeeds does not make up for it"
    assert asked == 4
    fails = False
    put(writer, [])
    assert not writer.refuses
    put(writer, notes(1, 1))
    assert asked == 5, "once it can, it is left alone"
    writer.end()
    assert writer.lost == 0


def test_each_time_that_a_disk_refuses_is_reported_once(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(refusals.logger, "error", lambda text, *more: said.append(text))
    writer = LedgerWriter(tmp_path / "run.jsonl", header)
    for time_ in range(1, 4):
        disk.room = 0
        for number in range(3):
            put(writer, notes(number, 1))
        assert len(said) == time_
        disk.room = PLENTY
        put(writer, [])
    writer.release()


def test_what_json_cannot_hold_is_lost_alone(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "run.jsonl", header)
    bad: list[Item] = [("token", {"u": float("nan")}), ("token", {"text": "\ud800"})]
    bad += [("discard", {"u": object()})]
    put(writer, [*notes(0, 1), *bad, *notes(1, 1)])
    writer.end()
    lines = chained_lines(writer.path)
    assert outline(lines) == ["genesis", "clock", 0, 1, "invalid", "close"]
    assert missing_in(lines) == {"token": 2, "discard": 1}


def test_losses_elsewhere_are_stated_where_they_are(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "run.jsonl")
    put(writer, notes(0, 1))
    writer.lose("overflow", {"token": 2}, since_wall_ns=5)
    writer.lose("overflow", {"token": 1, "draw": 1}, since_wall_ns=7)
    put(writer, notes(1, 1))
    writer.release()
    lines = chained_lines(writer.path)
    assert outline(lines) == [0, "overflow", 1]
    assert lines[1]["missing"] == {"token": 3, "draw": 1}
    assert lines[1]["since_wall_ns"] == 5
    assert writer.lost == 4


def test_a_clock_that_goes_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = time.time_ns()
    times = iter([now_ns, now_ns - 3_600 * 10**9, 0, 0, 0, 0])
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    writer = LedgerWriter(tmp_path / "run.jsonl", header, max_bytes=500)
    for number in range(4):
        put(writer, notes(number, 1))
        writer.sync()
    writer.path.unlink()
    put(writer, notes(4, 1))
    writer.release()
    assert outline(chained_lines(writer.path)) == ["genesis", "clock", "removed", 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gets_a_file_of_its_own(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "run.jsonl", header)
    put(writer, notes(0, 1))
    child = os.fork()
    if not child:
        try:
            put(writer, notes(100, 1))
            writer.end()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    put(writer, notes(1, 1))
    writer.end()
    assert numbers_in(chained_lines(tmp_path / "run.jsonl")) == [0, 1]
    (other,) = tmp_path.glob("run-fork*.jsonl")
    assert numbers_in(check_files([other])) == [100]
    assert len(list(tmp_path.iterdir())) == 2


@st.composite
def scripts(draw: st.DrawFn, *, loses_files: bool) -> list[tuple[str, int]]:
    disk = st.tuples(st.sampled_from(["room", "piece"]), st.integers(0, 1_200))
    usual = st.sampled_from(["plenty", "release", "end", "sync", "again"])
    others = st.sampled_from(["remove", "move", "cut"] if loses_files else ["again"])
    steps = st.one_of(
        st.tuples(st.just("write"), st.integers(0, 5)),
        disk,
        st.tuples(st.just("overflow"), st.integers(1, 3)),
        st.tuples(usual | others, st.integers(0, 400)),
    )
    return draw(st.lists(steps, max_size=30))


def play(
    folder: Path, disk: Disk, script: list[tuple[str, int]], **options: Any
) -> tuple[LedgerWriter, int]:
    """Does to a ledger what *script* says; returns it, and how many notes it was given."""
    writer = LedgerWriter(folder / "run.jsonl", header, **options)
    writer.begin()
    given = moved = 0
    for what, number in [*script, ("plenty", 0), ("write", 1), ("end", 0)]:
        # What has been ended belongs to its owner.
        there = writer.path.exists() and b'"kind":"close"' not in writer.path.read_bytes()
        if what == "write":
            put(writer, notes(given, number))
            given += number
        elif what == "overflow":
            writer.lose("overflow", {"note": number})
            given += number
        elif what in ("room", "piece"):
            setattr(disk, what, number + (what == "piece"))
        elif what == "plenty":
            disk.room = disk.piece = PLENTY
        elif what == "again":
            put(writer, [])
        elif what == "move" and there:
            moved += 1
            writer.path.rename(folder / f"moved{moved}")
        elif what == "remove" and there:
            writer.path.unlink()
        elif what == "cut" and there and number < writer.path.stat().st_size:
            os.truncate(writer.path, number)
        elif what in ("release", "end", "sync"):
            getattr(writer, what)()
    return writer, given


@given(scripts(loses_files=False), st.sampled_from([0, 1, 700, 3_000]), st.sampled_from([0, 4, 99]))
@settings(max_examples=150)
def test_every_line_is_in_a_file_or_counted(
    script: list[tuple[str, int]], max_bytes: int, held: int
) -> None:
    disk = Disk()
    with TemporaryDirectory() as name, disk.in_place():
        folder = Path(name)
        writer, given = play(folder, disk, script, max_bytes=max_bytes, held=held)
        lines = check_files(sorted(folder.iterdir()))
    numbers = numbers_in(lines)
    assert len(set(numbers)) == len(numbers)
    assert len(numbers) + missing_in(lines)["note"] == given
    assert writer.lost == missing_in(lines).total() == lines[-1]["lost"]


@given(scripts(loses_files=True), st.sampled_from([0, 700]), st.sampled_from([0, 4]))
@settings(max_examples=150)
def test_whatever_happens_to_the_files_the_last_ones_are_chained(
    script: list[tuple[str, int]], max_bytes: int, held: int
) -> None:
    disk = Disk()
    with TemporaryDirectory() as name, disk.in_place():
        folder = Path(name)
        writer, given = play(folder, disk, script, max_bytes=max_bytes, held=held)
        lines = chained_lines(writer.path)
        numbers = [
            number for file in folder.iterdir() for number in numbers_in(list(readable(file)))
        ]
    assert outline(lines)[:2] == ["genesis", "clock"]
    assert lines[-1]["kind"] == "close"
    assert len(set(numbers)) == len(numbers)
    assert len(numbers) + writer.lost >= given


def readable(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file that somebody may have damaged."""
    for raw in path.read_bytes().split(b"\n")[:-1]:
        with suppress(ValueError):
            yield json.loads(raw)


@given(st.integers(0, 10), st.integers(0, 2_000), st.booleans())
@settings(max_examples=100)
def test_a_file_that_a_crash_has_left_is_continued(
    count: int, left: int, with_newline: bool
) -> None:
    with TemporaryDirectory() as name:
        path = Path(name) / "run.jsonl"
        first = LedgerWriter(path, header)
        for number in range(count):
            put(first, notes(number, 1))
        first.begin()
        first.release()
        whole = path.read_bytes()
        left = min(left, len(whole))
        kept = whole[:left].split(b"\n")
        path.write_bytes(whole[:left] + b"\n" * (with_newline and kept[-1] != b""))
        second = LedgerWriter(path, header)
        put(second, notes(100, 1))
        second.end()
        if len(kept) == 1 and kept[0] and not kept[0].endswith(b"}"):
            # Not even the first line is whole.
            assert numbers_in(check_files([second.path])) == [100]
            return
        first.release()
        lines = chained_lines(path)
    torn = [line for line in lines if line["kind"] == "gap"]
    assert path.name == second.path.name
    assert numbers_in(lines)[-1] == 100
    assert len(torn) == (kept[-1] != b"" and not kept[-1].endswith(b"}"))
