# SPDX-License-Identifier: Apache-2.0
"""The commits of code that is installed from a checkout, read without git.

Whether files differ from those of the commit is not looked for: it shows in their digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from qr_sampler.records.code_digest.digests import OUR_PREFIX, editable_project

__all__ = ["code_commits", "commit_of"]

_COMMIT: Final = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_BRANCH: Final = re.compile(r"ref: (refs/(?!.*\.\.)[^\s]+)")
_LONGEST_BYTES: Final = 4_096
_LARGEST_PACK_BYTES: Final = 2**26


def code_commits(distributions: Iterable[str]) -> dict[str, str]:
    """Returns the commits of those *distributions* that are ours and editable in a checkout."""
    commits = {}
    for name in distributions:
        if not name.startswith(OUR_PREFIX):
            continue
        try:
            project = editable_project(distribution(name))
        except (PackageNotFoundError, OSError, ValueError, LookupError):
            continue
        commit = "" if project is None else commit_of(project)
        if commit:
            commits[name] = commit
    return commits


def commit_of(directory: Path) -> str:
    """Returns the commit that is checked out where a directory is, hexadecimal.

    Worktrees and submodules are found, as are branches that git has packed (gitrepository-layout).

    Args:
        directory: A directory of a checkout.

    Returns:
        The commit; empty if there is no checkout, or it keeps branches in another way.
    """
    try:
        for folder in (directory.absolute(), *directory.absolute().parents):
            if (folder / ".git").exists():
                return _head_of(_repository_of(folder))
    except (OSError, ValueError):
        return ""
    return ""


def _repository_of(checkout: Path) -> Path:
    """Returns where git keeps what belongs to a checkout alone."""
    place = checkout / ".git"
    if place.is_dir():
        return place
    return checkout / _text_of(place).removeprefix("gitdir: ")


def _head_of(repository: Path) -> str:
    head = _text_of(repository / "HEAD")
    branch = _BRANCH.fullmatch(head)
    if branch is None:
        return head if _COMMIT.fullmatch(head) else ""
    shared = repository
    if (repository / "commondir").is_file():
        shared = repository / _text_of(repository / "commondir")
    for place in (repository, shared):
        if (place / branch[1]).is_file():
            commit = _text_of(place / branch[1])
            return commit if _COMMIT.fullmatch(commit) else ""
    return _packed(shared / "packed-refs", branch[1])


def _packed(refs: Path, branch: str) -> str:
    if not refs.is_file() or refs.stat().st_size > _LARGEST_PACK_BYTES:
        return ""
    with refs.open(encoding="utf-8") as file:
        for line in file:
            commit, _, name = line.rstrip("\n").partition(" ")
            if name == branch and _COMMIT.fullmatch(commit):
                return commit
    return ""


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_LONGEST_BYTES).decode("utf-8").strip()
