# SPDX-License-Identifier: Apache-2.0
"""Starts the process that tests, waits for it, and ends it when it takes too long."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess  # nosec B404 - one call, without a shell
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from qr_sampler.foreign import plain_text
from qr_sampler_cli.component_test.subject import DONE, Subject

__all__ = ["Telling", "run_step"]

NOISE_BYTES: Final = 4_096
"""Of what a process prints, its end is kept."""
NOISE_S: Final = 1.0
"""How long what it has printed may take to arrive, in seconds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Telling:
    """What a step has told."""

    lines: tuple[dict[str, Any], ...]
    """All that it told, in its order."""
    ended: str
    """Why it ended early; empty if it did not."""

    def said(self, key: str) -> Any:
        """Returns the last value told for *key*, ``None`` if there is none."""
        return next((line[key] for line in reversed(self.lines) if key in line), None)


def run_step(step: str, subject: Subject, timeout_s: float) -> Telling:
    """Returns what a step tells; never raises because of what the component does.

    Args:
        step: Name of the step.
        subject: The component.
        timeout_s: Longest duration in seconds.
    """
    # What the component leaves in there may still change when it is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file, question = Path(folder, "told"), Path(folder, "subject")
        file.touch()
        question.write_text(json.dumps(dataclasses.asdict(subject)), "utf-8")
        command = [sys.executable, "-m", "qr_sampler_cli.component_test.child", step, str(file)]
        with question.open("rb") as asked:
            ended, last = _ended(command, asked, _environment(folder), timeout_s)
        lines = tuple(_told(file))
    if not ended and not any(DONE in line for line in lines):
        ended = "the process ended itself with status 0"
    if ended and last and not lines:
        ended = f"{ended}: {last}"
    return Telling(lines, ended)


def _told(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text("utf-8", "replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            # It was ended while it wrote.
            return


def _ended(
    command: list[str], asked: BinaryIO, environment: dict[str, str], timeout_s: float
) -> tuple[str, str]:
    """Runs the process; returns why it ended early, and the last line that it printed."""
    process = subprocess.Popen(  # nosec B603
        command,
        stdin=asked,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        # It may start processes of its own, which have to end, too.
        start_new_session=True,
    )
    noise = _Noise(cast("IO[bytes]", process.stdout))
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return f"no end after {timeout_s:g} s", noise.last_line()
    finally:
        _end(process)
    ended = "" if status == 0 else f"the process ended with status {status}"
    return ended, noise.last_line()


class _Noise(threading.Thread):
    """Reads what a process prints, however much, and keeps its end."""

    def __init__(self, output: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._output = output
        self._end = b""
        self.start()

    def run(self) -> None:
        """Reads until nobody can write any more."""
        with self._output as output:
            while piece := os.read(output.fileno(), NOISE_BYTES):
                self._end = (self._end + piece)[-NOISE_BYTES:]

    def last_line(self) -> str:
        """Returns the last line so far; what has left the group of the process may go on."""
        self.join(NOISE_S)
        lines = self._end.decode("utf-8", "replace").strip().splitlines()
        return plain_text(lines[-1]) if lines else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process, and those that it has started and that outlive it."""
    if hasattr(os, "killpg"):
        # On some systems those that have ended may not be signalled.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _environment(folder: str) -> dict[str, str]:
    """Returns the environment of this process, without what would change pytest.

    Temporary files go where they are removed, whatever becomes of the process.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TMPDIR": folder}
