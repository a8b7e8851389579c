# SPDX-License-Identifier: Apache-2.0
"""Files beside a ledger: they follow it, and lose pieces rather than make it wait."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qr_sampler.records.files import ledgers_in
from qr_sampler.records.files.append_file import AppendFile
from qr_sampler.records.sidecars import SidecarFile
from qr_sampler.records.sidecars import file as sidecar_module


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[SidecarFile]:
    made = SidecarFile(".notes", b"NOTES\n", sync_s=0.0)
    made.follow(tmp_path / "deep" / "run.jsonl")
    yield made
    made.release()


def test_pieces_follow_the_beginning_in_a_private_file(
    sidecar: SidecarFile, tmp_path: Path
) -> None:
    assert sidecar.flush() == 0
    assert not list(tmp_path.iterdir()), "nothing is there before the first piece"
    for piece in (b"one\n", b"two\n"):
        sidecar.put(piece)
        assert sidecar.flush() == 0
    path = tmp_path / "deep" / "run.notes"
    assert path.read_bytes() == b"NOTES\none\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sidecar.release()
    sidecar.put(b"three\n")
    sidecar.flush()
    assert path.read_bytes().endswith(b"two\nthree\n")


def test_every_file_of_the_ledger_has_its_own(sidecar: SidecarFile, tmp_path: Path) -> None:
    sidecar.put(b"one\n")
    sidecar.flush()
    sidecar.follow(tmp_path / "deep" / "run_0002.jsonl")
    sidecar.put(b"two\n")
    sidecar.flush()
    found = {path.name: path.read_bytes() for path in (tmp_path / "deep").iterdir()}
    assert found == {"run.notes": b"NOTES\none\n", "run_0002.notes": b"NOTES\ntwo\n"}


def test_a_file_that_is_gone_is_begun_again(sidecar: SidecarFile, tmp_path: Path) -> None:
    ledger = tmp_path / "deep" / "run.jsonl"
    sidecar.put(b"one\n")
    sidecar.flush()
    (tmp_path / "deep" / "run.notes").unlink()
    sidecar.follow(ledger)
    sidecar.put(b"two\n")
    sidecar.flush()
    assert (tmp_path / "deep" / "run.notes").read_bytes() == b"NOTES\ntwo\n"


def test_large_pieces_do_not_wait(sidecar: SidecarFile, tmp_path: Path) -> None:
    sidecar.put(bytes(2**20))
    assert (tmp_path / "deep" / "run.notes").stat().st_size == 2**20 + len(b"NOTES\n")


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Returns what limits the bytes that the disk takes from now on; ``None`` for no limit."""
    left: list[int | None] = [None]
    plain = AppendFile.append

    def append(self: AppendFile, data: bytes) -> tuple[int, OSError | None]:
        if left[0] is None:
            return plain(self, data)
        taken = data[: left[0]]
        left[0] -= len(taken)
        written, error = plain(self, taken)
        if len(taken) < len(data):
            error = OSError(28, "No space left on device")
        return written, error

    monkeypatch.setattr(AppendFile, "append", append)
    return lambda count: left.__setitem__(0, count)


@pytest.mark.parametrize("taken", range(len(b"NOTES\none\ntwo\n")))
def test_a_full_disk_may_stop_it_at_any_byte(
    taken: int,
    sidecar: SidecarFile,
    refusing: Callable[[int | None], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusing(taken)
    sidecar.put(b"one\n")
    sidecar.put(b"two\n")
    with caplog.at_level(logging.ERROR):
        assert [sidecar.flush() for _ in range(3)] == [0, 0, 0]
    assert len(caplog.records) == 1, "it says so once"
    refusing(None)
    sidecar.put(b"three\n")
    assert sidecar.flush() == 0
    assert (tmp_path / "deep" / "run.notes").read_bytes() == b"NOTES\none\ntwo\nthree\n"


def test_what_waits_for_a_disk_is_bounded_and_counted(
    sidecar: SidecarFile,
    refusing: Callable[[int | None], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sidecar_module, "_MOST_WAITING_BYTES", 10)
    refusing(0)
    for _ in range(5):
        sidecar.put(b"four\n")
    assert (sidecar.flush(), sidecar.flush()) == (3, 0)
    refusing(None)
    sidecar.flush()
    assert (tmp_path / "deep" / "run.notes").read_bytes() == b"NOTES\nfour\nfour\n"


def test_a_piece_that_was_begun_ends_where_its_file_does(
    sidecar: SidecarFile, refusing: Callable[[int | None], None], tmp_path: Path
) -> None:
    refusing(len(b"NOTES\non"))
    sidecar.put(b"one\n")
    sidecar.put(b"two\n")
    assert sidecar.flush() == 0
    refusing(None)
    sidecar.follow(tmp_path / "deep" / "run_0002.jsonl")
    sidecar.put(b"three\n")
    assert sidecar.flush() == 0
    assert (tmp_path / "deep" / "run.notes").read_bytes() == b"NOTES\none\ntwo\n"
    assert (tmp_path / "deep" / "run_0002.notes").read_bytes() == b"NOTES\nthree\n"


def test_a_piece_that_a_disk_refuses_is_in_no_later_file(
    sidecar: SidecarFile, refusing: Callable[[int | None], None], tmp_path: Path
) -> None:
    refusing(len(b"NOTES\non"))
    sidecar.put(b"one\n")
    sidecar.put(b"two\n")
    assert sidecar.flush() == 0
    sidecar.follow(tmp_path / "deep" / "run_0002.jsonl")
    refusing(None)
    sidecar.put(b"three\n")
    assert sidecar.flush() == 2
    assert (tmp_path / "deep" / "run.notes").read_bytes() == b"NOTES\non"
    assert (tmp_path / "deep" / "run_0002.notes").read_bytes() == b"NOTES\nthree\n"


def test_what_was_begun_when_it_ended_stays_one_piece(
    sidecar: SidecarFile, refusing: Callable[[int | None], None], tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "run.notes"
    for taken in (b"NOT", b"ES\non"):
        refusing(len(taken))
        sidecar.put(b"one\n")
        sidecar.put(b"two\n")
        assert sidecar.flush() == 0
        assert sidecar.end() == 2
        refusing(None)
    sidecar.follow(tmp_path / "deep" / "run.jsonl")
    sidecar.put(b"three\n")
    assert sidecar.end() == 0
    assert path.read_bytes() == b"NOTES\none\nthree\n"


def test_a_disk_that_cannot_say_what_it_has_fills_no_log(
    sidecar: SidecarFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: AppendFile) -> None:
        raise OSError(5, "Input/output error")

    with caplog.at_level(logging.ERROR):
        with monkeypatch.context() as broken:
            broken.setattr(AppendFile, "sync", refuse)
            for _ in range(5):
                sidecar.put(b"one\n")
                assert sidecar.flush() == 0
                assert sidecar.flush() == 0
        assert len(caplog.records) == 1
        sidecar.flush()
        sidecar.flush()
        monkeypatch.setattr(AppendFile, "sync", refuse)
        sidecar.flush()
    assert len(caplog.records) == 2, "it says so again when it had been well"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_process_leaves_what_waits_to_the_one_above_it(
    sidecar: SidecarFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sidecar.put(b"one\n")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    sidecar.follow(tmp_path / "deep" / "run-fork2.jsonl")
    sidecar.put(b"two\n")
    sidecar.flush()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run-fork2.notes"]
    assert (tmp_path / "deep" / "run-fork2.notes").read_bytes() == b"NOTES\ntwo\n"


def test_files_beside_ledgers_are_no_ledgers(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "a.prompts.jsonl", "a.blocks"):
        (tmp_path / name).touch()
    assert [path.name for path in ledgers_in(tmp_path)] == ["a.jsonl", "b.jsonl"]
    assert ledgers_in(tmp_path / "nowhere") == []
