# SPDX-License-Identifier: Apache-2.0
"""Answers that were there before: a signature does not say when its bytes were made."""

from __future__ import annotations

import hashlib
import threading
from typing import Final

__all__ = ["REMEMBERED", "SHORTEST", "AnswerMemory"]

REMEMBERED: Final = 1 << 14
"""Number of answers that are remembered, the latest ones."""

SHORTEST: Final = 32
"""Bytes of the shortest answer that is compared; shorter ones may well come twice."""

_DIGEST_BYTES: Final = 16


class AnswerMemory:
    """Knows the latest answers of a device by a hash of 128 bits of each; threads may share it."""

    def __init__(self) -> None:
        # A dictionary keeps the order, so that its first key is the oldest answer.
        self._digests: dict[bytes, None] = {}
        self._lock = threading.Lock()

    def is_known(self, data: bytes) -> bool:
        """Returns whether *data* is one of the latest answers, and remembers it."""
        if len(data) < SHORTEST:
            return False
        digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
        with self._lock:
            if digest in self._digests:
                return True
            self._digests[digest] = None
            if len(self._digests) > REMEMBERED:
                del self._digests[next(iter(self._digests))]
        return False
