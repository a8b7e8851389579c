# SPDX-License-Identifier: Apache-2.0
"""A server's own record of its answers: a second witness beside the ledgers of its clients.

The file has the chained lines of a ledger, see ``docs/ledger.md``, and none of the bytes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler.records.chain import Item
from qr_sampler.records.files.writer import Continues, LedgerWriter

__all__ = ["WitnessLog"]

_INTERVAL_S: Final = 0.2
_SYNC_S: Final = 1.0
_CLOSING_S: Final = 10.0


class WitnessLog:
    """Appends a line for every answer, from a thread of its own: no answer waits for the disk.

    Lines that the queue has no room for, or that the disk refuses, are stated in a ``gap``. A file
    that exists is continued. Threads may share an instance.

    Args:
        path: The file; made with mode 0600, its directory when missing.
        device_id: Identity of the device, for the line that the file begins with.
        capacity: Most lines that may wait.

    Raises:
        ConfigError: When the disk refuses the file from the beginning.
    """

    def __init__(self, path: Path, device_id: str = "", *, capacity: int = 65_536) -> None:
        self._device_id = device_id
        self._writer = LedgerWriter(path, self._header, held=1024, sync_s=_SYNC_S)
        self._writer.begin()
        if self._writer.refuses:
            raise ConfigError(f"the witness log {path} cannot be written; name another file")
        self._capacity = capacity
        self._lock = threading.Lock()
        self._waiting: list[Item] = []
        self._missed: Counter[str] = Counter()
        self._missed_since_ns = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qr-witness-log", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._writer.path

    @property
    def lost(self) -> int:
        """Number of answers that are in no file; those that wait for the disk are among them."""
        return self._writer.lost + self._missed.total()

    def note(
        self,
        *,
        sequence_id: int,
        generation_timestamp_ns: int,
        device_id: str,
        commitment: bytes,
        data_sha256: bytes,
    ) -> None:
        """Takes in an answer. Returns at once, whatever the disk does."""
        fields = {
            "sequence_id": sequence_id,
            "commitment": commitment.hex(),
            "data_sha256": data_sha256.hex(),
            "device_id": device_id,
            "generation_timestamp_ns": generation_timestamp_ns,
        }
        with self._lock:
            # What came before a gap stays before it.
            if not self._missed and len(self._waiting) < self._capacity:
                self._waiting.append(("answer", fields))
            else:
                self._missed_since_ns = self._missed_since_ns or time.time_ns()
                self._missed["answer"] += 1

    def close(self) -> None:
        """Writes what waits and ends the file, within seconds. May be called more than once."""
        self._over.set()
        self._thread.join(_CLOSING_S)

    def __enter__(self) -> WitnessLog:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _header(self, continues: Continues | None) -> list[Item]:
        fields = {
            "device_id": self._device_id,
            "continues": continues,
            "seal": None,
            "wall_time_ns": time.time_ns(),
        }
        return [("witness", fields)]

    def _run(self) -> None:
        while not self._over.wait(_INTERVAL_S):
            self._round()
        self._round()
        self._writer.end()

    def _round(self) -> None:
        with self._lock:
            lines, self._waiting = self._waiting, []
            missed, self._missed = self._missed, Counter()
            since_ns, self._missed_since_ns = self._missed_since_ns, 0
        self._writer.prepare()
        self._writer.write(lines)
        if missed:
            self._writer.lose("overflow", missed, since_ns)
            self._writer.write()
