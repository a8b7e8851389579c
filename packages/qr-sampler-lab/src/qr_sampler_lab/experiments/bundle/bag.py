# SPDX-License-Identifier: Apache-2.0
"""BagIt directories: a payload in ``data/`` and the digest of every file of it.

The format is RFC 8493, "The BagIt File Packaging Format (V1.0)". ``sha256sum -c
manifest-sha256.txt`` in the directory checks the payload, too.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from qr_sampler.errors import QRSamplerError

__all__ = ["MANIFEST", "PAYLOAD", "BagError", "digest_of", "finish_bag", "problems_of"]

PAYLOAD: Final = "data"
"""Directory of the payload."""

MANIFEST: Final = "manifest-sha256.txt"
"""The digests of the payload, as ``sha256sum`` prints them."""

TAG_MANIFEST: Final = "tagmanifest-sha256.txt"
"""The digests of the other files."""

DECLARATION: Final = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"

LARGEST_TAG_FILE: Final = 2**26
"""Bytes of the largest manifest that is read."""

_PIECE: Final = 2**20
_TAG_FILES: Final = ("bagit.txt", "bag-info.txt", MANIFEST)


class BagError(QRSamplerError, ValueError):
    """A directory is no bag, or none can be made of it."""


def finish_bag(directory: Path, info: Mapping[str, str]) -> None:
    """Makes a bag of a directory that has its payload already.

    Args:
        directory: Holds nothing but the directory :data:`PAYLOAD`.
        info: Further entries of ``bag-info.txt``.

    Raises:
        BagError: When a file has a name that does not fit on a line, or is a link.
    """
    digests, octets = {}, 0
    for path in _files(directory / PAYLOAD):
        name = path.relative_to(directory).as_posix()
        if "\n" in name or "\r" in name or "\\" in name or path.is_symlink():
            raise BagError(f"{name!r} cannot be in a bag: give a plain file a plain name")
        digests[name] = digest_of(path)
        octets += path.stat().st_size
    entries = {
        "Bag-Software-Agent": "qr-sampler",
        "Bagging-Date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "Payload-Oxum": f"{octets}.{len(digests)}",
        **info,
    }
    (directory / "bagit.txt").write_bytes(DECLARATION.encode())
    lines = [f"{label}: {' '.join(value.split())}\n" for label, value in entries.items()]
    (directory / "bag-info.txt").write_text("".join(lines), "utf-8")
    (directory / MANIFEST).write_text(_listed(digests), "utf-8")
    tags = {name: digest_of(directory / name) for name in _TAG_FILES}
    (directory / TAG_MANIFEST).write_text(_listed(tags), "utf-8")


def problems_of(directory: Path) -> Iterator[str]:
    """Yields everything that is wrong with a bag; nothing for one that is whole.

    Raises:
        BagError: When it is no bag at all, or holds links, pipes or devices.
    """
    declared = directory / "bagit.txt"
    if not declared.is_file():
        raise BagError(f"{directory} is no bundle: it has no bagit.txt")
    _refuse_other_things(directory)
    if _text(declared).replace("\r\n", "\n") != DECLARATION:
        yield "bagit.txt does not declare BagIt 1.0 in UTF-8"
    listed: set[str] = set()
    for manifest in (MANIFEST, TAG_MANIFEST):
        yield from _problems_in(directory, manifest, listed)
    present = {path.relative_to(directory).as_posix() for path in _files(directory)}
    for name in sorted(present - listed - {TAG_MANIFEST}):
        yield f"{name} is in no manifest"
    yield from _oxum_problems(directory)


def digest_of(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file.

    Raises:
        BagError: When it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise BagError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _problems_in(directory: Path, manifest: str, listed: set[str]) -> Iterator[str]:
    """Yields what is wrong with the files of a manifest, and adds their names to *listed*."""
    if not (directory / manifest).is_file():
        yield f"{manifest} is missing"
        return
    for number, line in enumerate(_text(directory / manifest).splitlines(), start=1):
        digest, _, name = line.partition("  ")
        path = PurePosixPath(name)
        if len(digest) != 64 or not name or path.is_absolute() or ".." in path.parts:
            yield f"{manifest}:{number}: no digest and name of a file of the bag"
            continue
        listed.add(name)
        target = directory / name
        if not target.is_file():
            yield f"{manifest}:{number}: {name} is missing"
        elif digest_of(target) != digest.lower():
            yield f"{manifest}:{number}: {name} is not the file that was bagged"


def _oxum_problems(directory: Path) -> Iterator[str]:
    info = directory / "bag-info.txt"
    lines = _text(info).splitlines() if info.is_file() else []
    stated = [line.partition(": ")[2] for line in lines if line.startswith("Payload-Oxum: ")]
    files = list(_files(directory / PAYLOAD))
    found = f"{sum(path.stat().st_size for path in files)}.{len(files)}"
    if stated != [found]:
        yield f"bag-info.txt: Payload-Oxum is {', '.join(stated) or 'missing'}, found {found}"


def _listed(digests: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def _files(directory: Path) -> Iterator[Path]:
    """Yields all files below a directory, following no link."""
    for folder, _, names in os.walk(directory):
        yield from (Path(folder, name) for name in sorted(names))


def _refuse_other_things(directory: Path) -> None:
    """Refuses links, which lead to what no manifest has, and pipes and devices, which never end.

    Raises:
        BagError: Naming the first.
    """
    for folder, folders, names in os.walk(directory):
        for path in (Path(folder, name) for name in sorted((*folders, *names))):
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise BagError(
                    f"{path} is neither a file nor a directory; a bundle has nothing else"
                )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_TAG_FILE + 1)
    except OSError as error:
        raise BagError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > LARGEST_TAG_FILE:
        raise BagError(f"{path} has more than {LARGEST_TAG_FILE:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BagError(f"{path} is not UTF-8: {error}") from error
