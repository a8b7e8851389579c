# SPDX-License-Identifier: Apache-2.0
"""The engines that sample in this process, and when their last records are written."""

from __future__ import annotations

import threading
import time
from multiprocessing.util import Finalize
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from qr_sampler import ConfigError
from qr_sampler.foreign import DefectLog

__all__ = ["Runner", "check_not_loaded", "flush_records", "register"]


class Runner(Protocol):
    """The part of the plugin that belongs to one engine."""

    def flush(self) -> None:
        """Writes the records of all tokens that are known to have been emitted.

        May be called from any thread at any time.
        """

    def close(self) -> None:
        """Writes the records that remain when the engine ends."""


FLUSH_INTERVAL_S: Final = 0.25
"""How long the record of the last token of an idle engine can wait. vLLM reports a token as sampled
with the step after it, and an idle engine makes none."""

_started = threading.Event()
_defects = DefectLog("the thread that writes records", "it goes on, but records may be late")
_runners: WeakValueDictionary[int, Runner] = WeakValueDictionary()


def check_not_loaded(vllm_config: Any) -> None:
    """Refuses a second runner of one engine.

    Args:
        vllm_config: vLLM's ``VllmConfig``.

    Raises:
        ConfigError: When the engine has a runner already.
    """
    if id(vllm_config) in _runners:
        raise ConfigError(
            "qr-sampler is loaded twice in one engine and would draw twice per token: vLLM loads "
            "it by its entry point, so remove it from --logits-processors"
        )


def register(vllm_config: Any, runner: Runner) -> None:
    """Makes *runner* the one runner of an engine.

    From now on it is flushed from another thread, and closed when the process ends.

    Args:
        vllm_config: vLLM's ``VllmConfig``, which the runner keeps alive.
        runner: The runner.

    Raises:
        ConfigError: When the engine has a runner already.
    """
    check_not_loaded(vllm_config)
    _runners[id(vllm_config)] = runner
    if not _started.is_set():
        _started.set()
        # Worker processes of vLLM leave without running atexit hooks; multiprocessing's finalizers
        # run in them and in the main process alike.
        Finalize(None, _close_all, exitpriority=10)
        threading.Thread(target=_flush_forever, name="qr-sampler-flush", daemon=True).start()


def flush_records() -> None:
    """Writes the records of every token that engines in this process have emitted so far.

    Happens by itself a moment later; needed only to read the ledger of a living in-process engine.
    """
    for runner in list(_runners.values()):
        runner.flush()


def _close_all() -> None:
    for runner in list(_runners.values()):
        runner.close()


def _flush_forever() -> None:
    while True:
        time.sleep(FLUSH_INTERVAL_S)
        for runner in list(_runners.values()):
            _flush(runner)


def _flush(runner: Runner) -> None:
    """Flushes *runner*; what goes wrong ends neither the thread nor the records of others."""
    try:
        runner.flush()
    # Nobody waits for this thread, so that an error which ended it would be seen by no one while
    # records of idle engines stay unwritten. The next round tries again.
    except BaseException as error:
        _defects.report(error)
