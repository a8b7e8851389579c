# SPDX-License-Identifier: Apache-2.0
"""Hashes the model's files beside the engine, which waits neither at its start nor at its end."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from qr_sampler.errors import ConfigError
from qr_sampler.host.public_text import public_model_name
from qr_sampler.records.entries import Entry
from qr_sampler.records.model_manifest import HashingStoppedError, default_cache, manifest_of
from qr_sampler.records.model_manifest.record import ModelRecord

__all__ = ["ModelDigest"]

_LOWEST_PRIORITY = 19


class ModelDigest:
    """Records the manifest of a model once, from a thread of the lowest priority.

    Args:
        name: Name of the model.
        path: Its directory, or its file if it is one.
        record: Takes the record.
        logger: Where failures are reported.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        record: Callable[[Iterable[Entry]], None],
        logger: logging.Logger,
    ) -> None:
        self._name = public_model_name(name)
        self._path = path
        self._record = record
        self._logger = logger
        self._begun = False
        self._stopped = False
        self._pid = os.getpid()
        self._recording = threading.Lock()
        """Held while the record is handed over, which happens before a stop or not at all."""

    def begin(self) -> None:
        """Begins, unless that was done before."""
        if self._begun:
            return
        self._begun = True
        thread = threading.Thread(target=self._run, name="qr-sampler-model", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is about to end.
            return

    def stop(self) -> None:
        """Gives up; from now on nothing is recorded."""
        self.give_up()
        # The thread does not survive a fork, and may have held the lock.
        if self._pid == os.getpid():
            with self._recording:
                pass

    def give_up(self) -> None:
        """Gives up soon; waits for nothing."""
        self._stopped = True

    def _run(self) -> None:
        _step_back()
        try:
            manifest = manifest_of(self._path, cache=default_cache(), stopped=lambda: self._stopped)
        except HashingStoppedError:
            return
        except (ConfigError, OSError) as error:
            self._logger.warning("the ledger has no digests of the model: %s", error)
            return
        made = ModelRecord(
            name=self._name, manifest_sha256=manifest.sha256, files=dict(manifest.files)
        )
        with self._recording:
            if not self._stopped:
                self._record([made])


def _step_back() -> None:
    """Lets everybody else go first. On Linux alone a thread has a priority of its own."""
    if sys.platform == "linux":
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        except OSError:
            return
