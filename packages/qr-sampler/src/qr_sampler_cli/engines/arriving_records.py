# SPDX-License-Identifier: Apache-2.0
"""The records of an engine that is running, read as they arrive in its ledger files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qr_sampler.records.reader import JoinedLines, lines_in
from qr_sampler_cli.generation.ledger_reader import EMITTED_KINDS, ledger_files

__all__ = ["ArrivingRecords"]


class ArrivingRecords:
    """Reads each byte of the new ledger files once, and keeps the records until they are asked for.

    Files that exist already are those of other engines.

    Args:
        directory: Where the engine writes its records; ``None`` if nobody will ask for them.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._ignore = frozenset() if directory is None else ledger_files(directory)
        self._offsets: dict[Path, int] = {}
        self._joined: dict[Path, JoinedLines] = {}
        self._records: dict[tuple[str, int], dict[str, Any]] = {}
        self._names: dict[str, str] = {}
        self._awaited: set[str] = set()

    def expect(self, request_keys: Iterable[str]) -> None:
        """Has the records of requests kept; those of others are not, which are other engines'.

        Args:
            request_keys: Name them.
        """
        self._awaited.update(request_keys)

    def read(self) -> None:
        """Reads the lines that are new."""
        if self._directory is None:
            return
        for path in ledger_files(self._directory) - self._ignore:
            # A file may be removed at any time; whoever reads the whole ledger reports that.
            with contextlib.suppress(OSError):
                self._read(path)

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            fresh = file.read()
        # The last line may be half written.
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offsets[path] = self._offsets.get(path, 0) + len(whole)
        joined = self._joined.setdefault(path, JoinedLines())
        for line in lines_in(io.BytesIO(whole)):
            if line.values is not None:
                self._keep(joined.joined(line.values))

    def _keep(self, values: dict[str, Any]) -> None:
        if values["kind"] not in EMITTED_KINDS:
            return
        key = str(values.get("request_key", ""))
        if key not in self._awaited:
            return
        self._names[key] = str(values.get("sequence", ""))
        self._records[key, int(values.get("position", -1))] = values

    def take(self, request_key: str, position: int) -> dict[str, Any] | None:
        """Returns the record of a token and forgets it; ``None`` if it has not arrived.

        Args:
            request_key: Names the request.
            position: Index of the token among those of the request.
        """
        return self._records.pop((request_key, position), None)

    def sequence(self, request_key: str) -> str:
        """Returns the name of the request's sequence, empty if no record has arrived."""
        return self._names.get(request_key, "")

    def forget(self, request_key: str) -> None:
        """Drops what was kept of a request that is over.

        Args:
            request_key: Names it.
        """
        self._awaited.discard(request_key)
        self._names.pop(request_key, None)
        for token in [token for token in self._records if token[0] == request_key]:
            del self._records[token]
