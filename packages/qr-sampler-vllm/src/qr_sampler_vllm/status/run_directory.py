# SPDX-License-Identifier: Apache-2.0
"""A private directory in which the engine processes of one front end publish their statuses.

vLLM's metrics are those of its front end, and a logits processor lives in another process. So the
front end creates a directory, its children find it through the environment, and every engine keeps
a small file there. Reading it needs no answer from an engine, which may be waiting for a device.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Final

__all__ = [
    "VARIABLE",
    "announce",
    "announced",
    "inherited",
    "make_run_directory",
    "publish",
    "published",
    "run_directory",
]

VARIABLE: Final = "QR_SAMPLER_RUN_DIRECTORY"
"""Environment variable that passes the directory on to the processes of an engine, after the id of
the process that created it and a colon."""

_LOADED: Final = "loaded-"
"""Prefix of the files in which processes announce themselves, before their ids."""

_AFTER_ALL_CHILDREN: Final = -1
"""Priority of the last finalizers of a process, after its children have ended."""

logger = logging.getLogger("vllm.qr_sampler")

_seen: set[Path] = set()
"""Directories that this process has seen, which hence belong to a front end on this machine."""


def make_run_directory() -> None:
    """Creates the directory unless the front end has; it is removed when this process ends."""
    if _inherited() is not None:
        return
    try:
        # Readable by its owner only.
        directory = tempfile.mkdtemp(prefix="qr-sampler-")
    except OSError as error:
        logger.warning("no status of engines will be known: %s", error)
        return
    os.environ[VARIABLE] = f"{os.getpid()}:{directory}"
    # A front end may itself be a child of multiprocessing, which ends without atexit hooks.
    Finalize(
        None,
        shutil.rmtree,
        args=(directory,),
        kwargs={"ignore_errors": True},
        exitpriority=_AFTER_ALL_CHILDREN,
    )


def run_directory() -> Path | None:
    """Returns the directory, or ``None`` if there is none that can be trusted.

    There is none on a host other than the front end's.
    """
    directory = _inherited()
    if directory is None:
        return None
    try:
        details = directory.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(details.st_mode) and not details.st_mode & 0o077
    if not private or details.st_uid != os.geteuid():
        return None
    _seen.add(directory)
    return directory


def announce(settings: Mapping[str, Any] | None = None) -> None:
    """Announces that vLLM has loaded the plugin in this process, whatever its role.

    Args:
        settings: The settings that it has read, JSON-ready.
    """
    directory = run_directory()
    if directory is None:
        return
    try:
        _put(directory, f"{_LOADED}{os.getpid()}", settings or {})
    except OSError as error:
        logger.warning("the front end will not know that qr-sampler is loaded: %s", error)


def announced() -> dict[int, dict[str, Any]]:
    """Returns the settings of each process of this front end that has loaded the plugin, by its id.

    A process may have ended in the meantime.
    """
    directory = run_directory()
    processes = {}
    for path in directory.glob(f"{_LOADED}*") if directory is not None else ():
        with contextlib.suppress(OSError):
            process = int(path.name.removeprefix(_LOADED))
            processes[process] = json.loads(path.read_text("utf-8"))
    return processes


def publish(name: str, status: Mapping[str, Any]) -> None:
    """Replaces the status published under *name*, atomically for readers.

    Raises:
        OSError: When it cannot be written.
    """
    directory = run_directory() or _recreated()
    if directory is None:
        return
    _put(directory, f"{name}.json", status)


def _put(directory: Path, name: str, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, allow_nan=False)
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(temporary).replace(directory / name)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def published() -> list[dict[str, Any]]:
    """Returns the statuses of the engines of this front end, in the order of their names."""
    directory = run_directory()
    if directory is None:
        return []
    statuses = []
    for path in sorted(directory.glob("[!.]*.json")):
        try:
            statuses.append(json.loads(path.read_text("utf-8")))
        except OSError:
            # It has been removed in the meantime, as happens at shutdown.
            continue
    return statuses


def _recreated() -> Path | None:
    """Recreates the directory from an engine's process if somebody has removed it.

    The front end's own process does not: it removes the directory itself at the end.
    """
    directory = _inherited()
    if directory not in _seen or os.environ[VARIABLE].startswith(f"{os.getpid()}:"):
        return None
    try:
        directory.mkdir(mode=0o700)
    except OSError:
        return None
    return run_directory()


def inherited(variable: str) -> str | None:
    """Returns the value that this process's front end has put into *variable*.

    It is ``None`` if there is none, or if it is another front end's.

    Every child inherits the environment, even a program that starts another vLLM. The processes of
    an engine are children of :mod:`multiprocessing`, or workers of Ray, recognisable by having
    imported it before any plugin; every other process is a front end of its own.
    """
    maker, _, value = os.environ.get(variable, "").partition(":")
    if not value:
        return None
    belongs = multiprocessing.parent_process() is not None or "ray" in sys.modules
    return value if belongs or maker == str(os.getpid()) else None


def _inherited() -> Path | None:
    directory = inherited(VARIABLE)
    return None if directory is None else Path(directory)
