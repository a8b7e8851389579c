# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of what a draw has brought, while its bytes still exist.

A thread computes that of long draws: hashing does not hold the interpreter, so that the step which
forgets the bytes goes on meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol

from qr_sampler.per_process import PerProcess

__all__ = ["DataDigest", "digest_of"]

SHORT_BYTES: Final = 16_384
"""Up to this length hashing takes no longer than handing over."""

_hashing: Final = PerProcess(
    lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="qr-sampler-sha256")
)


class DataDigest(Protocol):
    """A digest that may not be there yet."""

    def result(self, timeout: float | None = None) -> bytes:
        """Returns it, 32 bytes, as soon as it is there.

        Raises:
            TimeoutError: When it is not there in time, if a time in seconds is given.
        """


class _Known:
    """One that is there. Making a future takes longer than to hash a short draw."""

    __slots__ = ("_digest",)

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def result(self, timeout: float | None = None) -> bytes:
        """Returns it."""
        return self._digest


class _Pending:
    """One that a thread computes. A forked process, which has no such thread, does so itself.

    Args:
        data: The bytes.

    Raises:
        RuntimeError: While the interpreter ends.
    """

    __slots__ = ("_data", "_digest", "_future", "_process")

    def __init__(self, data: bytes) -> None:
        self._digest = b""
        self._data = data
        """The bytes, as long as there is no digest."""
        self._process = os.getpid()
        self._future = _hashing.get().submit(self._compute)

    def result(self, timeout: float | None = None) -> bytes:
        """Returns it, as soon as it is there."""
        if self._process == os.getpid():
            self._future.result(timeout)
        elif not self._digest:
            # Of the future not even the lock can be relied on.
            self._compute()
        return self._digest

    def _compute(self) -> None:
        self._digest = _sha256(self._data)
        self._data = b""


def digest_of(data: bytes) -> DataDigest:
    """Returns the SHA-256 of *data*, 32 bytes, as soon as it is there."""
    if len(data) > SHORT_BYTES:
        # While the interpreter ends no more work is taken.
        with suppress(RuntimeError):
            return _Pending(data)
    return _Known(_sha256(data))


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
