# SPDX-License-Identifier: Apache-2.0
"""The process that imports an engine: started, waited for, and ended if it hangs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess  # nosec B404 - one call, without a shell
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Any, Final

from qr_sampler_cli.doctor.examination import MARKER, Examination
from qr_sampler_cli.doctor.request import EngineRequest
from qr_sampler_cli.environment import engine_defaults

__all__ = ["TIMEOUT_S", "answer_of", "examine"]

TIMEOUT_S: Final = 300.0
"""Longest time in seconds for an import and a configuration; from a slow disk it takes minutes."""

COMMAND: Final = (sys.executable, "-m", "qr_sampler_cli.doctor.examination")


def examine(
    request: EngineRequest, *, timeout_s: float = TIMEOUT_S, command: Sequence[str] = COMMAND
) -> Examination:
    """Returns what a separate process learns about vLLM; never raises because of its behaviour.

    Args:
        request: How vLLM will be started.
        timeout_s: Longest time in seconds that it may take.
        command: What to run.
    """
    question = json.dumps(dataclasses.asdict(request))
    answer, failure = answer_of(command, question, timeout_s=timeout_s)
    return Examination(failure=failure) if answer is None else Examination.of(answer)


def answer_of(
    command: Sequence[str], question: str, *, timeout_s: float
) -> tuple[dict[str, Any] | None, str]:
    """Returns what a process answers, or ``None`` and how it ended, with its last words.

    Args:
        command: What to run. Its answer is a line of JSON after :data:`MARKER`.
        question: What it reads from standard input.
        timeout_s: Longest time in seconds that it may take.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
    ):
        ending = _run(command, question, output, log, timeout_s)
        line = next((line for line in _lines(output) if line.startswith(MARKER)), None)
        if line is not None:
            return json.loads(line.removeprefix(MARKER)), ""
        last_words = next((line for line in reversed(_lines(log)) if line), "no output")
    return None, f"{ending}: {last_words}"


def _run(
    command: Sequence[str], question: str, output: IO[str], log: IO[str], timeout_s: float
) -> str:
    """Returns how the process ended. Its output goes to files, so that no reader can block it."""
    process = subprocess.Popen(  # nosec B603
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=log,
        text=True,
        env=_quiet(),
        # vLLM starts processes of its own, which have to end, too.
        start_new_session=True,
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(question, timeout=timeout_s)
            return f"it ended with status {process.returncode}"
        return f"it took longer than {timeout_s:g} s and was stopped"
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends *process* if it still runs and, where the system allows, every process it started."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        # Until it is waited for, its process id cannot be reused.
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _quiet() -> dict[str, str]:
    """Returns the environment of this process, with vLLM told to be quiet and stay offline."""
    silent = engine_defaults("", verbose=False)
    names = ("VLLM_LOGGING_STREAM", "VLLM_LOGGING_LEVEL", "TORCH_CPP_LOG_LEVEL")
    defaults = {name: silent[name] for name in names}
    # A directory that happens to be called vllm must not be taken for the installed package.
    fixed = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONSAFEPATH": "1"}
    return {**defaults, **os.environ, **fixed}


def _lines(file: IO[str]) -> list[str]:
    file.seek(0)
    return [line.strip() for line in file]
