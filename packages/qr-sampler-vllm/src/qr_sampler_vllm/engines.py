# SPDX-License-Identifier: Apache-2.0
"""The engines that sample in this process; their records are flushed when it ends."""

from __future__ import annotations

from multiprocessing.util import Finalize
from typing import Any, Protocol
from weakref import WeakValueDictionary

from qr_sampler import ConfigError

__all__ = ["Runner", "flush_records", "register"]


class Runner(Protocol):
    """The part of the plugin that belongs to one engine."""

    def flush(self) -> None:
        """Settles which tokens were emitted and writes their records."""


_runners: WeakValueDictionary[int, Runner] = WeakValueDictionary()


def register(vllm_config: Any, runner: Runner) -> None:
    """Makes *runner* the one runner of an engine, flushed when the process ends.

    Args:
        vllm_config: vLLM's ``VllmConfig``, which the runner keeps alive.
        runner: The runner.

    Raises:
        ConfigError: When the engine has a runner already.
    """
    if id(vllm_config) in _runners:
        raise ConfigError(
            "qr-sampler is loaded twice in one engine and would draw twice per token: vLLM loads "
            "it by its entry point, so remove it from --logits-processors"
        )
    if not _runners:
        # Worker processes of vLLM leave without running atexit hooks; multiprocessing's finalizers
        # run in them and in the main process alike.
        Finalize(None, flush_records, exitpriority=10)
    _runners[id(vllm_config)] = runner


def flush_records() -> None:
    """Writes the records of every token that engines in this process have emitted so far.

    Needed only to read the ledger of a living in-process engine: vLLM reports a token as emitted
    with the step after it, and an idle engine makes no step.
    """
    for runner in list(_runners.values()):
        runner.flush()
