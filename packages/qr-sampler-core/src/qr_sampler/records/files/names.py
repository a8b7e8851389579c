# SPDX-License-Identifier: Apache-2.0
"""How the files of one ledger are called."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["FileNames", "ledgers_in"]


def ledgers_in(directory: Path) -> list[Path]:
    """Returns the ledgers of a directory by name, without the files beside them.

    Args:
        directory: The directory; one that is not there has none.
    """
    return sorted(
        path for path in directory.glob("*.jsonl") if not path.name.endswith(".prompts.jsonl")
    )


class FileNames:
    """Names of files: that of the first, then with a number behind it, which only ever grows.

    So a file that its owner has put away never meets another one of its name.

    Args:
        first: The first file.
    """

    def __init__(self, first: Path) -> None:
        self._first = first
        self._number = 1

    @property
    def following(self) -> Path:
        """The next name, which nobody uses."""
        return self._path_of(self._free_number())

    def take(self) -> Path:
        """Returns the next name, which nobody uses; it is never returned again."""
        self._number = self._free_number()
        return self._path_of(self._number)

    def note(self, path: Path) -> None:
        """Takes note of a name that somebody else has taken for the same ledger."""
        number = path.stem.removeprefix(f"{self._first.stem}_")
        if number.isascii() and number.isdigit():
            self._number = max(self._number, int(number))

    def of_fork(self, pid: int) -> FileNames:
        """Returns the names that a forked process uses."""
        first = self._first
        return FileNames(first.with_name(f"{first.stem}-fork{pid}{first.suffix}"))

    def _free_number(self) -> int:
        number = self._number + 1
        while os.path.lexists(self._path_of(number)):
            number += 1
        return number

    def _path_of(self, number: int) -> Path:
        return self._first.with_name(f"{self._first.stem}_{number:04}{self._first.suffix}")
