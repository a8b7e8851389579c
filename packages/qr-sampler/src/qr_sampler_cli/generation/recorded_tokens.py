# SPDX-License-Identifier: Apache-2.0
"""How many tokens a running engine has recorded so far."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from qr_sampler_cli.generation.ledger_reader import ledger_files

__all__ = ["RecordedTokens"]

TOKEN_MARK: Final = b'{"kind":"token"'


class RecordedTokens:
    """Counts the token records that appear in a directory, reading each byte once.

    The count is for display only: it relies on the writer's formatting and lags by a step.

    Args:
        directory: Where the engine writes its records.
        ignore: Files that existed before.
    """

    def __init__(self, directory: Path, *, ignore: frozenset[Path]) -> None:
        self._directory = directory
        self._ignore = ignore
        self._offsets: dict[Path, int] = {}
        self._count = 0

    def __call__(self) -> int:
        """Returns the number of token records so far."""
        for path in ledger_files(self._directory) - self._ignore:
            # A file may be removed at any time; reading the whole ledger will report it.
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                fresh = file.read()
                self._offsets[path] = file.tell()
                self._count += fresh.count(TOKEN_MARK)
        return self._count
