# SPDX-License-Identifier: Apache-2.0
"""The key that whoever writes marks must know."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler_lab.experiments.protocol.files import read_bounded

__all__ = ["MarkKey"]

_LARGEST_FILE: Final = 4096
_SHORTEST: Final = 16
_KEY: Final = re.compile(rb"[!-~]+")


class MarkKey:
    """A secret; shows nothing of it in its representation.

    Args:
        secret: At least 16 printable ASCII characters, without spaces.

    Raises:
        ConfigError: When it is none; never quotes it.
    """

    def __init__(self, secret: bytes) -> None:
        if _KEY.fullmatch(secret) is None or len(secret) < _SHORTEST:
            raise ConfigError(
                f"a key is one line of at least {_SHORTEST} ASCII characters without spaces; make "
                "one with `openssl rand -hex 16`"
            )
        self._digest = hashlib.sha256(secret).digest()

    @classmethod
    def read(cls, path: Path) -> MarkKey:
        """Returns the key in a file, space around it ignored.

        Raises:
            ConfigError: When the file cannot be read or holds none.
        """
        try:
            return cls(read_bounded(path, _LARGEST_FILE).strip())
        except ConfigError as error:
            raise ConfigError(f"--key-file {path}: {error}") from None

    def is_in(self, authorization: str) -> bool:
        """Whether a header ``Authorization`` carries the key, in time independent of it."""
        scheme, _, secret = authorization.partition(" ")
        # Digests have one length, so that the time does not tell that of the key either.
        digest = hashlib.sha256(secret.strip().encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(digest, self._digest) and scheme.lower() == "bearer"
