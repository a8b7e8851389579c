# SPDX-License-Identifier: Apache-2.0
"""What importing a module does beside importing, seen from a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import Final

__all__ = ["noises_of_import"]

_PATIENCE_S: Final = 60.0

_PROGRAM: Final = """
import json, os, stat, sys, threading
import qr_sampler.entropy
noises = []
def is_device(path):
    try:
        mode = os.stat(path).st_mode
    except (OSError, TypeError, ValueError):
        return False
    special = stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    return special and path != os.devnull
def listen(event, arguments):
    # A number is what another call has opened, such as the pipe of a program.
    if event == "open" and not isinstance(arguments[0], int) and is_device(arguments[0]):
        noises.append(f"opens {os.fsdecode(arguments[0])}")
    elif event in ("socket.connect", "socket.sendto"):
        noises.append(f"connects to {arguments[1]}")
sys.addaudithook(listen)
try:
    __import__(sys.argv[1])
except ModuleNotFoundError as error:
    if not (sys.argv[1] + ".").startswith(f"{error.name}."):
        raise
    noises = None
others = [one for one in threading.enumerate() if one is not threading.current_thread()]
if noises is not None:
    noises += [f"starts the thread {one.name}" for one in others]
print("", json.dumps(noises), sep="\\n", file=sys.__stdout__, flush=True)
os._exit(0)
"""


@cache
def noises_of_import(module: str) -> tuple[str, ...] | None:
    """Returns which devices, connections and threads the import of *module* opens and starts.

    What it computes without them cannot be seen from outside.

    Returns:
        One text each; ``None`` when the module has no name that another process could import.

    Raises:
        AssertionError: When the import fails or does not end in time.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, module],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"import {module} has not ended after {_PATIENCE_S:g} s") from None
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"import {module}: {done.stderr[-2000:]}"
    assert lines, f"import {module} ended the process"
    noises = json.loads(lines[-1])
    return None if noises is None else tuple(noises)
