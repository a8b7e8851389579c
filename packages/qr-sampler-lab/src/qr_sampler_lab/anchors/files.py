# SPDX-License-Identifier: Apache-2.0
"""How anchors are written: whole or not at all, readable by their owner only."""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from qr_sampler_cli.audit.anchors.drand import Round
from qr_sampler_cli.audit.anchors.files import folder_of
from qr_sampler_lab.anchors.heads import Head

__all__ = ["BEACON_FILE", "write_beacon", "write_stamp", "write_whole"]

BEACON_FILE: Final = "beacon.json"
"""Name of the file with the latest round, which the writer of the ledger looks at."""


def write_stamp(ledger: Path, head: Head, token: bytes, url: str) -> Path:
    """Writes a time stamp of the head of *ledger*, and returns its file.

    Raises:
        OSError: When the disk refuses.
    """
    folder = _made(folder_of(ledger))
    now = time.time_ns()
    when = datetime.fromtimestamp(now // 1000 / 1e6, timezone.utc)
    name = f"{when:%Y%m%dT%H%M%S.%f}Z-{head.n:012}"
    told = {
        "kind": "tsa",
        "ledger": ledger.name,
        "n": head.n,
        "lines": head.n + 1,
        "head": head.digest,
        "wall_time_ns": now,
        "url": url,
        "token": f"{name}.tsr",
    }
    # First: a file that names it is a whole anchor.
    write_whole(folder / f"{name}.tsr", token)
    path = folder / f"{name}.json"
    write_whole(path, _encoded(told))
    return path


def write_beacon(ledger: Path, latest: Round) -> None:
    """Writes the latest round of the beacon for whoever writes *ledger*.

    Raises:
        OSError: When the disk refuses.
    """
    told = {"kind": "drand", **latest.as_dict(), "wall_time_ns": time.time_ns()}
    write_whole(_made(folder_of(ledger)) / BEACON_FILE, _encoded(told))


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file, in the place of one of its name, so that nobody ever sees part of it.

    Raises:
        OSError: When the disk refuses.
    """
    # A name that no anchor has, with mode 0600.
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _encoded(told: dict[str, Any]) -> bytes:
    return json.dumps(told, indent=1).encode() + b"\n"
