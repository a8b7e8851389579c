# SPDX-License-Identifier: Apache-2.0
"""The ``.env`` file: which one it is, and what is said of one that cannot be read.

All settings of a process come from the same file, regardless of who reads them when: the one in
the working directory unless :func:`pin_env_file` has named another.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError

__all__ = ["ENCODING", "ENV_FILE", "env_file", "pin_env_file", "readable_env_file"]

ENV_FILE: Final = Path(".env")
ENCODING: Final = "utf-8-sig"
"""UTF-8, with or without the byte order mark that editors on Windows put first."""

_MOST_BYTES: Final = 2**20
_REMEDY: Final = "save it as UTF-8"

_pinned: Path | None = None


def pin_env_file(path: Path | None) -> None:
    """Makes *path* the file of this process, wherever it works; ``None`` undoes that."""
    global _pinned
    _pinned = path


def env_file() -> Path:
    """Returns the file that settings come from; it need not exist."""
    return ENV_FILE if _pinned is None else _pinned


def readable_env_file() -> Path | None:
    """Returns the file, known to be text, or ``None`` when there is none.

    What is no regular file (an environment of Python's may have that name) counts as none. The
    message never repeats what the file holds, which may be a key.

    Raises:
        ConfigError: When it cannot be read, naming it, the reason and the remedy.
    """
    path = env_file()
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path.absolute()} cannot be read: {error.strerror}; let this user read it, or start "
            "in another directory"
        ) from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path.absolute()} is larger than {_MOST_BYTES} bytes; shorten it")
    _check_text(path, data)
    return path


def _check_text(path: Path, data: bytes) -> None:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        raise ConfigError(f"{path.absolute()} is not UTF-8, but perhaps UTF-16; {_REMEDY}")
    at = _first_bad_byte(data)
    # Raised outside the handler: the error of the codec holds the whole file.
    if at is not None:
        line = data.count(b"\n", 0, at) + 1
        position = f"byte {data[at]:#04x} in line {line}"
        raise ConfigError(f"{path.absolute()} is not UTF-8: {position}; {_REMEDY}")


def _first_bad_byte(data: bytes) -> int | None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None
