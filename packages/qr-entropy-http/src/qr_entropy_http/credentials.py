# SPDX-License-Identifier: Apache-2.0
"""The API key that a service asks for, which comes from a file and goes nowhere else."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler.settings.private_files import warn_of_others

__all__ = ["key_in"]

logger = logging.getLogger("qr_sampler.http")

LONGEST_KEY: Final = 4096
"""Number of characters of the longest key."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

_FLAGS: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
"""Windows has neither: it has no pipes among its files, and lets no child inherit them."""


def key_in(path: Path) -> str:
    """Returns the key that the file at *path* holds, without the space around it.

    Warns, once for each file and mode, when others on this machine can read or change it. That is
    no error: containers mount secrets for their only user in such modes.

    Raises:
        ConfigError: When it cannot be read, or holds no key that a header can carry; never quotes
            what is in it.
    """
    try:
        # Opening a pipe would wait for its writer, and it could not be read again.
        file = os.open(path, os.O_RDONLY | _FLAGS)
        with os.fdopen(file, "rb") as opened:
            mode = os.fstat(file).st_mode
            data = opened.read(LONGEST_KEY + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise ConfigError(f"cannot read the API key from {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{path} is no regular file; write the API key into one")
    warn_of_others(path, "API key", logger, mode=mode, group_may_read=False)
    key = data.decode("utf-8-sig", "replace").strip()
    if len(data) > LONGEST_KEY or not _TOKEN.fullmatch(key):
        # Raised outside of a handler: the error of a codec holds the contents of the file.
        raise ConfigError(
            f"{path} holds no API key: one line of printable ASCII without space, of "
            f"{LONGEST_KEY} characters at most"
        )
    return key
