# SPDX-License-Identifier: Apache-2.0
"""Files appear whole, with the mode of a new file, and nothing is written through a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from qr_sampler.whole_file import write_whole


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_new_file_has_its_mode_and_its_text(tmp_path: Path) -> None:
    private, shared = tmp_path / "private", tmp_path / "shared"
    write_whole(private, "a\nä\u2028b\n", mode=0o600)
    write_whole(shared, "")
    assert private.read_bytes() == "a\nä\u2028b\n".encode()
    assert (mode_of(private), mode_of(shared)) == (0o600, 0o644)
    assert sorted(tmp_path.iterdir()) == [private, shared]


def test_a_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "open to all"
    path.write_text("old", "utf-8")
    path.chmod(0o666)
    before = path.stat().st_ino
    # Whoever has the old file open keeps reading the old text.
    with path.open(encoding="utf-8") as reader:
        write_whole(path, "new", replace=True, mode=0o600)
        assert reader.read() == "old"
    assert path.read_text("utf-8") == "new"
    assert mode_of(path) == 0o600
    assert path.stat().st_ino != before


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_replaced_and_not_followed(tmp_path: Path, dangling: bool) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    if not dangling:
        victim.write_text("precious", "utf-8")
    link.symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(link, "new")
    write_whole(link, "new", replace=True)
    assert not link.is_symlink()
    assert link.read_text("utf-8") == "new"
    assert victim.exists() is not dangling
    if not dangling:
        assert victim.read_text("utf-8") == "precious"


def test_only_files_give_way(tmp_path: Path) -> None:
    folder, fifo, file = tmp_path / "folder", tmp_path / "fifo", tmp_path / "file"
    folder.mkdir()
    os.mkfifo(fifo)
    file.write_text("precious", "utf-8")
    for path, replace in ((folder, True), (fifo, True), (file, False)):
        with pytest.raises(FileExistsError):
            write_whole(path, "new", replace=replace)
    assert stat.S_ISFIFO(fifo.lstat().st_mode)
    assert file.read_text("utf-8") == "precious"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_failure_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", "utf-8")
    # Half of the text could be encoded, but not the whole.
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "x" * 100_000 + "\ud800", replace=True)
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "file", "")


def test_file_systems_without_hard_links_do_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no such thing here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"
    write_whole(path, "new", mode=0o640)
    assert (path.read_text("utf-8"), mode_of(path)) == ("new", 0o640)
    with pytest.raises(FileExistsError):
        write_whole(path, "newer")
    assert path.read_text("utf-8") == "new"


def test_a_name_that_is_taken_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    fsync = os.fsync

    def overtaken(descriptor: int) -> None:
        fsync(descriptor)
        path.write_text("theirs", "utf-8")

    monkeypatch.setattr(os, "fsync", overtaken)
    with pytest.raises(FileExistsError):
        write_whole(path, "ours")
    assert path.read_text("utf-8") == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_long_names_fit(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 120)
    write_whole(path, "new")
    assert list(tmp_path.iterdir()) == [path]
