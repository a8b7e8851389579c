# SPDX-License-Identifier: Apache-2.0
"""A private directory in which the engine processes of one front end leave word of themselves.

vLLM's metrics are those of its front end, and a logits processor lives in another process. So the
front end makes a directory, its children learn of it from the environment, and every engine keeps a
small file there. Reading it needs no answer from an engine, which may be waiting for a device.
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
"""Environment variable that hands the directory on to the processes of an engine, behind the number
of the process that has made it."""

_LOADED: Final = "loaded-"
"""Begins the names of the files in which processes leave word, before their numbers."""

_AFTER_ALL_CHILDREN: Final = -1
"""Priority of what a process does last, when its children have ended."""

logger = logging.getLogger("vllm.qr_sampler")

_seen: set[Path] = set()
"""Directories that were here for this process, and so belong to a front end on this machine."""


def make_run_directory() -> None:
    """Makes the directory, unless the front end has done so; it goes when this process ends."""
    if _inherited() is not None:
        return
    try:
        # Readable by its owner only.
        directory = tempfile.mkdtemp(prefix="qr-sampler-")
    except OSError as error:
        logger.warning("no status of engines will be known: %s", error)
        return
    os.environ[VARIABLE] = f"{os.getpid()}:{directory}"
    # A front end may itself be a child of multiprocessing, which leaves without atexit hooks.
    Finalize(
        None,
        shutil.rmtree,
        args=(directory,),
        kwargs={"ignore_errors": True},
        exitpriority=_AFTER_ALL_CHILDREN,
    )


def run_directory() -> Path | None:
    """Returns the directory, or ``None`` where there is none that can be trusted.

    On another host than the front end's there is none.
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
    """Leaves word that vLLM has loaded the plugin in this process, whatever its part there is.

    Args:
        settings: Those that it has read, as JSON has them.
    """
    directory = run_directory()
    if directory is None:
        return
    try:
        _put(directory, f"{_LOADED}{os.getpid()}", settings or {})
    except OSError as error:
        logger.warning("the front end will not know that qr-sampler is loaded: %s", error)


def announced() -> dict[int, dict[str, Any]]:
    """Returns the processes of this front end in which vLLM has loaded the plugin, by number.

    Each with the settings that it has read; a process may have ended meanwhile.
    """
    directory = run_directory()
    processes = {}
    for path in directory.glob(f"{_LOADED}*") if directory is not None else ():
        with contextlib.suppress(OSError):
            process = int(path.name.removeprefix(_LOADED))
            processes[process] = json.loads(path.read_text("utf-8"))
    return processes


def publish(name: str, status: Mapping[str, Any]) -> None:
    """Puts *status* in place of what was said under *name* before; readers never see a half of it.

    Raises:
        OSError: When the disk refuses.
    """
    directory = run_directory() or _made_anew()
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
    """Returns what the engines of this front end say of themselves, in the order of their names."""
    directory = run_directory()
    if directory is None:
        return []
    statuses = []
    for path in sorted(directory.glob("[!.]*.json")):
        try:
            statuses.append(json.loads(path.read_text("utf-8")))
        except OSError:
            # It was removed meanwhile, as happens when everything ends.
            continue
    return statuses


def _made_anew() -> Path | None:
    """Makes the directory again in an engine's process, if somebody has removed it.

    In the front end's own it is gone for good: it is removed there in the end.
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
    """Returns what the front end that this process is or belongs to has put into *variable*.

    It is ``None`` where there is none, or where it is another front end's.

    The environment reaches every child, also a program that starts another vLLM. The processes of
    an engine are children of :mod:`multiprocessing`, or workers of Ray, which are told by that they
    have loaded it before any plugin; everything else is a front end of its own.
    """
    maker, _, value = os.environ.get(variable, "").partition(":")
    if not value:
        return None
    belongs = multiprocessing.parent_process() is not None or "ray" in sys.modules
    return value if belongs or maker == str(os.getpid()) else None


def _inherited() -> Path | None:
    directory = inherited(VARIABLE)
    return None if directory is None else Path(directory)
