# SPDX-License-Identifier: Apache-2.0
"""The small private file that remembers what was spent."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from qr_entropy_http.exchange.deadline import Deadline
from qr_entropy_http.quota.file_lock import lock, unlock
from qr_entropy_http.quota.tally import MOST_GRAINS

__all__ = ["Counts", "QuotaStore", "QuotaStoreError"]

Counts = dict[str, dict[int, int]]
"""Amounts by the name of their quota and by grain."""

LARGEST_FILE: Final = 2**17
"""Number of bytes of the largest file that is read."""

LARGEST_NUMBER: Final = 2**53
"""Largest number that is believed; beyond it times would be inexact."""

_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700
_RETRY_S: Final = 0.002
_FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
"""Windows has neither; there no child inherits a file unless it is told to."""


class QuotaStoreError(Exception):
    """What was spent cannot be read or noted, so nothing may be spent; states what to do."""


class QuotaStore:
    """Amounts in a file, which the threads and processes of a machine share.

    Whoever reads it in order to change it holds a lock on a second file meanwhile. It is replaced
    as a whole, so that a process which dies leaves the old one or the new one. What the machine had
    not written to its disk when its power failed is lost.

    Args:
        path: The file; its folder is made if it is missing, for this user alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self, deadline: Deadline) -> Iterator[Counts]:
        """Yields what the file holds, and writes what it is changed to unless an error is raised.

        Raises:
            QuotaStoreError: When the file cannot be read or written, or is damaged.
            DeadlineLapsedError: When others have held its lock for too long.
        """
        try:
            with self._locked(deadline):
                counts = self._read()
                yield counts
                self._write(counts)
        except OSError as error:
            raise QuotaStoreError(
                f"{self.path} cannot be read and written ({error.strerror}), so what was spent is "
                "unknown and nothing may be spent; name a folder for it in QR_HTTP_STATE_DIR"
            ) from error

    @contextmanager
    def _locked(self, deadline: Deadline) -> Iterator[None]:
        self.path.parent.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        descriptor = os.open(
            self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | _FLAGS, _PRIVATE_FILE
        )
        try:
            # Without waiting in the system: who holds it may be stopped.
            while not lock(descriptor):
                time.sleep(min(_RETRY_S, deadline.remaining_s()))
            yield
        finally:
            # A child that another thread has forked meanwhile has it, too, and would keep it.
            unlock(descriptor)
            os.close(descriptor)

    def _read(self) -> Counts:
        try:
            file = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FLAGS)
        except FileNotFoundError:
            return {}
        with os.fdopen(file, "rb") as opened:
            regular = stat.S_ISREG(os.fstat(file).st_mode)
            data = opened.read(LARGEST_FILE + 1) if regular else b""
        counts = _counts(data)
        if counts is None:
            raise QuotaStoreError(
                f"{self.path} is damaged, so what was spent is unknown and nothing may be spent; "
                "delete it to start counting from zero"
            )
        return counts

    def _write(self, counts: Counts) -> None:
        fresh = self.path.with_suffix(".new")
        # One that a process has left which died.
        fresh.unlink(missing_ok=True)
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, _PRIVATE_FILE)
        with os.fdopen(file, "w", encoding="ascii") as opened:
            json.dump({"version": 1, "spent": counts}, opened)
        fresh.replace(self.path)


def _counts(data: bytes) -> Counts | None:
    """Returns what the file says, ``None`` if it says anything else."""
    try:
        content: Any = json.loads(data)
        if len(data) > LARGEST_FILE or content["version"] != 1:
            return None
        return {str(name): _grains(grains) for name, grains in content["spent"].items()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None


def _grains(grains: dict[str, Any]) -> dict[int, int]:
    found = {int(grain): amount for grain, amount in grains.items()}
    fit = all(
        type(amount) is int and 0 <= amount <= LARGEST_NUMBER and abs(grain) <= LARGEST_NUMBER
        for grain, amount in found.items()
    )
    if not fit or len(found) > MOST_GRAINS:
        raise ValueError(grains)
    return found
