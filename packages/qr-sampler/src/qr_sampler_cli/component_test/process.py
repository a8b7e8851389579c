# SPDX-License-Identifier: Apache-2.0
"""Starts the process that tests, waits for it, and ends it when it takes too long."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess  # nosec B404 - one call, without a shell
import sys
import tempfile
from pathlib import Path
from typing import Any

from qr_sampler_cli.component_test.subject import Subject

__all__ = ["Telling", "run_step"]


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
    with tempfile.TemporaryDirectory() as folder:
        file, noise = Path(folder, "told"), Path(folder, "noise")
        file.touch()
        command = [sys.executable, "-m", "qr_sampler_cli.component_test.child", step, str(file)]
        question = json.dumps(dataclasses.asdict(subject))
        with noise.open("w", encoding="utf-8") as output:
            ended = _ended(command, question, output, timeout_s)
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        if ended and not lines:
            last = noise.read_text("utf-8", "replace").strip().splitlines()[-1:]
            ended = ": ".join([ended, *last])
    return Telling(tuple(lines), ended)


def _ended(command: list[str], question: str, output: Any, timeout_s: float) -> str:
    """Runs the process and returns why it ended early; its output goes to a file."""
    process = subprocess.Popen(  # nosec B603
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
        # It may start processes of its own, which have to end, too.
        start_new_session=True,
    )
    try:
        process.communicate(question, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return f"no end after {timeout_s:g} s"
    finally:
        _end(process)
    return "" if process.returncode == 0 else f"the process ended with status {process.returncode}"


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """Returns the environment of this process, without what would change pytest."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
