# SPDX-License-Identifier: Apache-2.0
"""The file that keeps a copy of the records of one run."""

from __future__ import annotations

import os
from pathlib import Path

from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler.whole_file import is_replaceable, write_whole
from qr_sampler_cli.generation.ledger_reader import Ledger

__all__ = ["RecordsFile", "check_destination"]


class RecordsFile:
    """A JSON Lines file for one run, readable by its owner only.

    Two runs in one file would be two geneses in one ledger, so an existing file is refused; with
    *force* it is replaced.

    Args:
        path: The file.
        force: Whether an existing file may be replaced.

    Raises:
        ConfigError: When the file exists and *force* is not given, or cannot be created.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        self.path = path
        self._force = force
        # Checked before the engine starts, so that a long run cannot end without its records.
        if os.path.lexists(path) and not force:
            raise ConfigError(f"{path} exists; choose another file or replace it with --force")
        check_destination(path)

    def write(self, ledger: Ledger) -> None:
        """Writes every line of *ledger* as the engine wrote it, whole or not at all.

        Raises:
            QRSamplerError: When the file cannot be written.
        """
        text = "".join(f"{line.text}\n" for line in ledger.lines)
        try:
            write_whole(self.path, text, replace=self._force, mode=0o600)
        except OSError as error:
            raise QRSamplerError(f"cannot write the records to {self.path}: {error}") from error


def check_destination(path: Path) -> None:
    """Refuses a path where no file can be written.

    Raises:
        ConfigError: When *path* exists and is not a regular file, or its directory is missing or
            not writable.
    """
    if os.path.lexists(path) and not is_replaceable(path):
        raise ConfigError(f"cannot write {path}: it is not a regular file; name another one")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: name a file in an existing directory")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"cannot write {path}: {path.parent} is not writable")
