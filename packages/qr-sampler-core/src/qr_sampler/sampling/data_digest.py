# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of what a draw has brought, while its bytes still exist.

A thread computes that of long draws: hashing does not hold the interpreter, so that the step which
forgets the bytes goes on meanwhile.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from qr_sampler.per_process import PerProcess

__all__ = ["digest_of"]

SHORT_BYTES: Final = 16_384
"""Up to this length hashing takes no longer than handing over."""

_hashing: Final = PerProcess(
    lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="qr-sampler-sha256")
)


def digest_of(data: bytes) -> Future[bytes]:
    """Returns the SHA-256 of *data*, 32 bytes, as soon as it is there."""
    if len(data) > SHORT_BYTES:
        # While the interpreter ends no more work is taken.
        with suppress(RuntimeError):
            return _hashing.get().submit(_sha256, data)
    done: Future[bytes] = Future()
    done.set_result(_sha256(data))
    return done


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
