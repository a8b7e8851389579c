# SPDX-License-Identifier: Apache-2.0
"""Files that a report is written to, and those that it needs beside ledgers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qr_sampler.amplification import Baseline
from qr_sampler.whole_file import write_whole
from qr_sampler_lab.tables.errors import TablesError

__all__ = ["baselines_in", "write_page"]


def baselines_in(paths: Iterable[Path]) -> dict[str, int]:
    """Returns the number of blocks of baselines, by their digest.

    Raises:
        ConfigError: When a file is no baseline.
    """
    loaded = [Baseline.load(path) for path in paths]
    return {baseline.digest: baseline.blocks for baseline in loaded}


def write_page(path: Path, text: str) -> None:
    """Writes a page that only its owner may read, in place of the one before.

    Raises:
        TablesError: When it cannot be written.
    """
    try:
        write_whole(path, text, replace=True, mode=0o600)
    except OSError as error:
        raise TablesError(f"{path} cannot be written: {error.strerror}") from error
