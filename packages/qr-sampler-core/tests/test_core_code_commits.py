# SPDX-License-Identifier: Apache-2.0
"""The commit of an editable installation is the one that git tells."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qr_sampler.records.code_digest import code_commits, commit_of

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")


def git(folder: Path, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=m"]
    return subprocess.run(
        ["git", *identity, "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        env={**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "packages" / "lamp").mkdir(parents=True)
    (folder / "packages" / "lamp" / "file").touch()
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def plain(checkout: Path) -> Path:
    return checkout / "packages" / "lamp"


def packed(checkout: Path) -> Path:
    for number in range(20):
        git(checkout, "branch", f"a/{number}")
    git(checkout, "pack-refs", "--all")
    return checkout


def detached(checkout: Path) -> Path:
    git(checkout, "checkout", "-q", "--detach")
    return checkout


def worktree(checkout: Path) -> Path:
    git(checkout, "worktree", "add", "-q", "../other", "-b", "deep/branch")
    git(checkout, "pack-refs", "--all")
    git(checkout.parent / "other", "commit", "-q", "--allow-empty", "-m", "two")
    return checkout.parent / "other" / "packages"


def packed_worktree(checkout: Path) -> Path:
    folder = worktree(checkout)
    git(checkout, "pack-refs", "--all")
    return folder


def submodule(checkout: Path) -> Path:
    outer = checkout.parent / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "submodule", "add", "-q", str(checkout), "inner")
    return outer / "inner" / "packages"


def sha256(checkout: Path) -> Path:
    folder = checkout.parent / "long"
    folder.mkdir()
    git(folder, "init", "-q", "--object-format=sha256")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return folder


@pytest.mark.parametrize(
    "make", [plain, packed, detached, worktree, packed_worktree, submodule, sha256]
)
def test_it_is_the_one_that_git_tells(checkout: Path, make: Callable[[Path], Path]) -> None:
    folder = make(checkout)
    assert commit_of(folder) == git(folder, "rev-parse", "HEAD") != ""


@pytest.mark.parametrize(
    "head",
    [b"", b"ref: refs/heads/nowhere", b"ref: refs/../../secret", b"\xff", b"0" * 39, b"x" * 40],
)
def test_what_is_not_known_is_empty(checkout: Path, head: bytes) -> None:
    (checkout / "secret").write_text("0" * 40)
    (checkout / ".git" / "HEAD").write_bytes(head)
    assert commit_of(checkout) == ""


def test_there_need_not_be_a_checkout(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere")
    assert commit_of(tmp_path) == ""
    assert commit_of(tmp_path / "missing") == ""


def test_only_editable_installations_of_ours_have_one(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, origin in {
        "qr_lamp": {"url": plain(checkout).as_uri(), "dir_info": {"editable": True}},
        "qr_wheel": {"url": plain(checkout).as_uri(), "dir_info": {}},
        "other": {"url": plain(checkout).as_uri(), "dir_info": {"editable": True}},
    }.items():
        info = tmp_path / "site" / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "direct_url.json").write_text(json.dumps(origin))
    (tmp_path / "site" / "qr_broken-1.dist-info").mkdir()
    (tmp_path / "site" / "qr_broken-1.dist-info" / "direct_url.json").write_text("{")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = code_commits(["qr-lamp", "qr-wheel", "qr-broken", "qr-nobody", "other"])
    assert found == {"qr-lamp": git(checkout, "rev-parse", "HEAD")}
