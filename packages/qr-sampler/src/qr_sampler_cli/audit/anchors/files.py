# SPDX-License-Identifier: Apache-2.0
"""The files beside a ledger that hold its anchors."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from qr_sampler.errors import QRSamplerError
from qr_sampler_cli.audit.anchors.timestamps import LONGEST_TOKEN

__all__ = ["AnchorFile", "AnchorFileError", "anchor_files", "folder_of", "read_small"]

MOST_FILES: Final = 1_000_000
"""Most files of a folder that are looked at."""

_LARGEST: Final = 2**14
_HEAD: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[\w.+-]{1,100}", re.ASCII)


class AnchorFileError(QRSamplerError, ValueError):
    """A file in a folder of anchors is none."""


@dataclass(frozen=True, slots=True)
class AnchorFile:
    """One time stamp of a ledger, as its file describes it."""

    path: Path
    """The file."""
    n: int
    """Number of the line that it stamps."""
    head: str
    """SHA-256 of that line."""
    token: Path
    """The reply of the authority."""


def folder_of(ledger: Path) -> Path:
    """Returns where the anchors of *ledger* are, unless they are kept elsewhere."""
    return ledger.with_suffix(".anchors")


def anchor_files(folder: Path) -> Iterator[AnchorFile | AnchorFileError]:
    """Yields the time stamps in *folder*, in order of their names, and what is wrong with others.

    There are none where there is no such folder.
    """
    for path in islice(sorted(folder.glob("*.json")), MOST_FILES):
        try:
            told = json.loads(read_small(path, _LARGEST))
            if not isinstance(told, dict) or told.get("kind") != "tsa":
                continue
            yield _anchor_of(path, told)
        except (OSError, ValueError, RecursionError) as error:
            yield AnchorFileError(f"{path}: {error}")


def read_small(path: Path, most: int = LONGEST_TOKEN) -> bytes:
    """Returns what is in a file.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is no regular file, or has more than *most* bytes.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most} bytes")
    return data


def _anchor_of(path: Path, told: dict[str, Any]) -> AnchorFile:
    n, head, token = told.get("n"), told.get("head"), told.get("token")
    if type(n) is not int or n < 0:
        raise ValueError("n is no number of a line")
    if not isinstance(head, str) or not _HEAD.fullmatch(head):
        raise ValueError("head is no SHA-256")
    # A name without a path, so that nothing outside of the folder is read.
    if not isinstance(token, str) or not _NAME.fullmatch(token):
        raise ValueError("token is no name of a file")
    return AnchorFile(path, n, head, path.with_name(token))
