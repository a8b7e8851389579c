# SPDX-License-Identifier: Apache-2.0
"""Runs a program of others: with a time limit, bounded output and no secrets in its environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess  # nosec B404 - one call, without a shell
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

__all__ = ["MOST_OUTPUT", "ProgramRun", "run_program"]

MOST_OUTPUT: Final = 2**20
"""Bytes of output from which on a program is ended."""

_LOOK_EVERY_S: Final = 0.05
_PASSED_ON: Final = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
"""Variables that programs see: settings of ours may hold keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRun:
    """How a program ended, and what it said."""

    status: int | None
    """Its exit status, negative for a signal; ``None`` if it was ended or never began."""
    output: str
    """What it wrote to standard output, then to standard error."""
    failure: str = ""
    """Why it did not end by itself; empty if it did."""


def run_program(
    arguments: Sequence[str], *, directory: Path, timeout_s: float, stdin: Path | None = None
) -> ProgramRun:
    """Runs a program to its end, or to that of its time or its output.

    Args:
        arguments: The program and its arguments; no shell sees them.
        directory: Where it runs, for what it writes.
        timeout_s: Longest time in seconds; then it and whatever it started are killed.
        stdin: File that is its standard input; nothing by default.
    """
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    with contextlib.ExitStack() as stack:
        out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        source = stack.enter_context((stdin or Path(os.devnull)).open("rb"))
        try:
            process = subprocess.Popen(  # nosec B603 - no shell, a program that the user installed
                list(arguments),
                stdin=source,
                stdout=out,
                stderr=err,
                cwd=directory,
                env={**environment, "LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            return ProgramRun(status=None, output="", failure=f"cannot be run: {error}")
        failure = _waited(process, (out, err), timeout_s)
        status = None if failure else process.returncode
        return ProgramRun(status=status, output=_said(out) + _said(err), failure=failure)


def _waited(
    process: subprocess.Popen[bytes], outputs: Sequence[IO[bytes]], timeout_s: float
) -> str:
    """Waits for the end of *process*; returns why it had to be killed, or an empty text."""
    ends = time.monotonic() + timeout_s
    failure = ""
    try:
        while not failure:
            try:
                process.wait(_LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                if time.monotonic() >= ends:
                    failure = f"ended after {timeout_s:g} s, the time limit"
                elif sum(os.fstat(file.fileno()).st_size for file in outputs) > MOST_OUTPUT:
                    failure = f"ended after more than {MOST_OUTPUT:,} bytes of output"
            else:
                break
    finally:
        # Also what it has started and left behind, and when the wait itself was interrupted.
        _end(process)
    return failure


def _end(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _said(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST_OUTPUT).decode("utf-8", "replace")
