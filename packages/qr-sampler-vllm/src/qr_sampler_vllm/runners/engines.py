# SPDX-License-Identifier: Apache-2.0
"""The engines that sample in this process, and the writing of their last records."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import Any, Final, Protocol
from weakref import finalize

from qr_sampler import ConfigError
from qr_sampler.foreign import DefectLog

__all__ = [
    "FLUSH_INTERVAL_S",
    "Runner",
    "check_not_loaded",
    "end_records",
    "flush_records",
    "register",
]


class Runner(Protocol):
    """The part of the plugin that belongs to one engine. May be called from any thread."""

    def keep_up(self) -> None:
        """Records what is settled, or has waited since the last call, and publishes the status.

        Whether tokens that have waited were emitted is unknown, and their records say so. Waits
        for no disk.
        """

    def flush(self) -> None:
        """Writes the records of all tokens that are known to have been emitted, and the status."""

    def close(self) -> None:
        """Writes the records that remain when the engine ends."""


FLUSH_INTERVAL_S: Final = 0.1
"""Interval at which records are brought up to date and written, in seconds. A token is written
within two intervals of its step, unless the disk takes longer: the next step shows that it was
emitted, but an idle engine makes none. A killed process loses what was drawn within that time."""

_started = threading.Event()
_defects = DefectLog("the thread that keeps records up", "it continues, but they may be late")
_runners: dict[int, tuple[Any, Runner]] = {}
"""The runner of each engine, by the identity of its configuration, which is kept alive so that no
other object gets that identity. vLLM drops its runners before their last records are written."""
_abandoned: set[int] = set()
"""The keys of engines that vLLM has released."""


def check_not_loaded(vllm_config: Any) -> None:
    """Refuses a second runner of one engine.

    Args:
        vllm_config: vLLM's ``VllmConfig``.

    Raises:
        ConfigError: When the engine has a runner already.
    """
    key = id(vllm_config)
    if key in _runners and key not in _abandoned:
        raise ConfigError(
            "qr-sampler is loaded twice in one engine and would draw twice per token: vLLM loads "
            "it by its entry point, so remove it from --logits-processors"
        )


def register(vllm_config: Any, runner: Runner, owner: object) -> None:
    """Makes *runner* the only runner of an engine.

    From now on another thread makes it keep up with its records, until vLLM releases *owner*. No
    record waits for that, or for the end of the process, which may be killed.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        runner: The runner, which must not keep *owner* alive.
        owner: What vLLM keeps alive as long as the engine.

    Raises:
        ConfigError: When the engine has a runner already.
    """
    check_not_loaded(vllm_config)
    _close_abandoned()
    key = id(vllm_config)
    _runners[key] = (vllm_config, runner)
    # The thread that collects garbage may hold a lock, so this only leaves a note.
    finalize(owner, _abandoned.add, key).atexit = False
    if not _started.is_set():
        _started.set()
        # Worker processes of vLLM leave without running atexit hooks; multiprocessing's finalizers
        # run in them and in the main process alike.
        Finalize(None, end_records, exitpriority=10)
        threading.Thread(target=_flush_forever, name="qr-sampler-flush", daemon=True).start()


def flush_records() -> None:
    """Writes the records of every token that is known to have been emitted so far.

    This also happens automatically a moment later; it is needed only before reading the ledger of
    a running in-process engine.
    """
    for runner in _all_runners():
        runner.flush()


def end_records() -> None:
    """Ends the ledgers of engines in this process, which are over.

    This also happens when the process ends; it is needed only before their files are moved or
    removed.
    """
    for runner in _all_runners():
        runner.close()


def _all_runners() -> list[Runner]:
    return [runner for _, runner in list(_runners.values())]


def _close_abandoned() -> None:
    for key in list(_abandoned):
        # Two threads may be here at once.
        abandoned = _runners.pop(key, None)
        _abandoned.discard(key)
        if abandoned is not None:
            abandoned[1].close()


def _flush_forever() -> None:
    while True:
        time.sleep(FLUSH_INTERVAL_S)
        _flush_once()


# A function of its own, so that no runner is kept alive by a name while the thread sleeps.
def _flush_once() -> None:
    for runner in _all_runners():
        _attempt(runner.keep_up)
    _attempt(_close_abandoned)


def _attempt(writing: Callable[[], None]) -> None:
    """Has a runner do its part; a failure ends neither the thread nor the part of others."""
    try:
        writing()
    # Nobody waits for this thread: an error that ended it would go unnoticed, and the records of
    # idle engines would stay unwritten. The next round tries again.
    except BaseException as error:
        _defects.report(error)


def _forget() -> None:
    """Leaves the parent's engines to the parent; its thread does not survive the fork."""
    _started.clear()
    _runners.clear()
    _abandoned.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
