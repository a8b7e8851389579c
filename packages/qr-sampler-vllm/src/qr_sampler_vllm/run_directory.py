# SPDX-License-Identifier: Apache-2.0
"""A private directory in which the engine processes of one front end leave word of themselves.

vLLM's metrics are those of its front end, and a logits processor lives in another process. So the
front end makes a directory, its children learn of it from the environment, and every engine keeps a
small file there. Reading it needs no answer from an engine, which may be waiting for a device.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["VARIABLE", "make_run_directory", "publish", "published", "run_directory"]

VARIABLE: Final = "QR_SAMPLER_RUN_DIRECTORY"
"""Environment variable that hands the directory on to the processes of an engine."""

logger = logging.getLogger("vllm.qr_sampler")


def make_run_directory() -> None:
    """Makes the directory, unless a parent process has done so; it goes when this process ends."""
    if os.environ.get(VARIABLE):
        return
    try:
        # Readable by its owner only.
        directory = tempfile.mkdtemp(prefix="qr-sampler-")
    except OSError as error:
        logger.warning("no status of engines will be known: %s", error)
        return
    os.environ[VARIABLE] = directory
    atexit.register(_remove, directory, os.getpid())


def run_directory() -> Path | None:
    """Returns the directory, or ``None`` where there is none that can be trusted.

    On another host than the front end's there is none.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    directory = Path(value)
    try:
        found = directory.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    return directory if private and found.st_uid == os.geteuid() else None


def publish(name: str, status: Mapping[str, Any]) -> None:
    """Puts *status* in place of what was said under *name* before; readers never see a half of it.

    Raises:
        OSError: When the disk refuses.
    """
    directory = run_directory()
    if directory is None:
        return
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".")
    with os.fdopen(descriptor, "w") as file:
        json.dump(status, file, allow_nan=False)
    Path(temporary).replace(directory / f"{name}.json")


def published() -> list[dict[str, Any]]:
    """Returns what the engines of this front end say of themselves, in the order of their names."""
    directory = run_directory()
    if directory is None:
        return []
    found = []
    for path in sorted(directory.glob("[!.]*.json")):
        try:
            found.append(json.loads(path.read_text("utf-8")))
        except OSError:
            # It was removed meanwhile, as happens when everything ends.
            continue
    return found


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
