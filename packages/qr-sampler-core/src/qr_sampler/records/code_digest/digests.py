# SPDX-License-Identifier: Apache-2.0
"""Digests of installed code, so that a ledger says what it was made with."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

__all__ = ["OUR_PREFIX", "code_digest", "code_digests", "editable_project"]

OUR_PREFIX: Final = "qr-"
"""What the names of the distributions begin with whose code is digested."""


def code_digests(distributions: Iterable[str]) -> dict[str, str]:
    """Returns the :func:`code_digest` of those *distributions* that are ours and installed."""
    digests = {}
    for name in distributions:
        if name.startswith(OUR_PREFIX):
            digest = code_digest(name)
            if digest:
                digests[name] = digest
    return digests


def code_digest(name: str) -> str:
    """Returns the SHA-256 of the installed files of a distribution, hexadecimal.

    It covers what ``sha256sum`` prints of them, a line for each, in the order of their paths: the
    digest, two spaces, and the path below the directory that holds the packages, with ``/`` between
    its parts. Metadata and byte code are left out. An editable installation has the digest of the
    same files in a wheel.

    Args:
        name: Name of the distribution.

    Returns:
        The digest; empty if it is not installed, or its files are not to be found or read.
    """
    try:
        files = dict(_files_of(distribution(name)))
        listing = "".join(
            f"{hashlib.sha256(files[path].read_bytes()).hexdigest()}  {path}\n"
            for path in sorted(files)
        )
    except (PackageNotFoundError, OSError, ValueError):
        return ""
    return hashlib.sha256(listing.encode()).hexdigest() if files else ""


def _files_of(installed: Distribution) -> Iterator[tuple[str, Path]]:
    """Yields the files of a distribution, each with its path below that of the packages."""
    root = _editable_root(installed)
    if root is not None:
        for path in root.rglob("*"):
            relative = path.relative_to(root)
            if path.is_file() and _is_code(relative.parts):
                yield relative.as_posix(), path
        return
    for file in _listed_files(installed):
        if _is_code(file.parts):
            yield file.as_posix(), Path(str(installed.locate_file(str(file))))


def _listed_files(installed: Distribution) -> list[PurePosixPath]:
    """Returns the files that a wheel has brought, whether or not they are still there.

    ``Distribution.files`` leaves out those that are gone, from Python 3.12 on.
    """
    rows = csv.reader((installed.read_text("RECORD") or "").splitlines())
    return [PurePosixPath(row[0]) for row in rows if row]


def _is_code(parts: tuple[str, ...]) -> bool:
    """Whether a file belongs to a package: no metadata, no byte code, no script elsewhere."""
    return (
        len(parts) > 1
        and parts[0] != ".."
        and "__pycache__" not in parts
        and not any(part.endswith((".dist-info", ".egg-info")) for part in parts)
    )


def editable_project(installed: Distribution) -> Path | None:
    """Returns the directory of the project of an editable installation (PEP 610), or ``None``.

    Raises:
        ValueError: When its metadata is damaged.
    """
    text = installed.read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlsplit(origin["url"]).path))


def _editable_root(installed: Distribution) -> Path | None:
    """Returns the directory of the packages of an editable installation, or ``None``."""
    project = editable_project(installed)
    source = None if project is None else project / "src"
    return source if source is not None and source.is_dir() else None
