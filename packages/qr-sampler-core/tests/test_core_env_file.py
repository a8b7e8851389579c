# SPDX-License-Identifier: Apache-2.0
"""The `.env` file: found once, read whatever an editor has made of it, or refused by its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qr_sampler import ConfigError, Settings
from qr_sampler.settings.env_file import env_file, pin_env_file

SECRET = "QR_GRPC_API_KEY=do-not-repeat-me"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file in the working directory of the test."""
    return tmp_path / ".env"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_first_variable_counts_with_a_byte_order_mark_and_without(
    file: Path, encoding: str
) -> None:
    file.write_text("QR_TOP_K=7\nQR_ENTROPY_SOURCE_TYPE=täglich\n", encoding)
    settings = Settings.load()
    assert (settings.top_k, settings.entropy_source_type) == (7, "täglich")


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("utf-16", "perhaps UTF-16"),
        ("utf-16-le", "perhaps UTF-16"),
        ("latin-1", "byte 0xe4 in line 2"),
    ],
)
def test_other_encodings_are_refused_by_name_and_nothing_is_repeated(
    file: Path, encoding: str, words: str
) -> None:
    file.write_bytes(f"{SECRET}\nQR_ENTROPY_SOURCE_TYPE=täglich\n".encode(encoding))
    with pytest.raises(ConfigError, match=words) as caught:
        Settings.load()
    assert str(file) in str(caught.value)
    assert "UTF-8" in str(caught.value)
    assert "do-not-repeat-me" not in f"{caught.value!r}{caught.value.__context__!r}"


def test_a_file_that_cannot_be_opened_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The superuser may open everything, so that the refusal is made up."""
    file.write_text("QR_TOP_K=7\n")
    opened = Path.open

    def refused(path: Path, *arguments: str) -> object:
        if path.name == ".env":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied") as caught:
        Settings.load()
    assert str(file) in str(caught.value)


def test_a_file_without_an_end_is_refused(file: Path) -> None:
    file.write_text("#" * (2**20 + 1))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        Settings.load()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)])
def test_what_is_no_file_counts_as_none(file: Path, make: object) -> None:
    """Opening a FIFO would wait for somebody to write."""
    assert callable(make)
    make(file)
    assert Settings.load().top_k == 0


def test_a_pinned_file_is_read_wherever_the_process_works(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("QR_TOP_K=7\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".env").write_text("QR_TOP_K=8\n")
    monkeypatch.chdir(elsewhere)
    assert Settings.load().top_k == 8
    pin_env_file(file)
    try:
        assert env_file() == file
        assert Settings.load().top_k == 7
    finally:
        pin_env_file(None)
    assert Settings.load().top_k == 8


@pytest.mark.skipif(not (ROOT / "noxfile.py").exists(), reason="needs the sources of all packages")
def test_nobody_has_a_loader_of_their_own() -> None:
    """A second one would find another file, or read it in another way."""
    packages = ROOT / "packages"
    others = [
        path
        for path in packages.glob("*/src/**/*.py")
        if "env_file=" in path.read_text("utf-8") or "BaseSettings)" in path.read_text("utf-8")
    ]
    core = packages / "qr-sampler-core" / "src" / "qr_sampler"
    assert others == [core / "settings" / "environment.py"]
