# SPDX-License-Identifier: Apache-2.0
"""libjitterentropy through ctypes: the functions of its manual, ``jitterentropy(3)``.

They are called without the interpreter lock. The codes are those of ``jitterentropy.h``.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

__all__ = ["Collector", "JitterError", "JitterLibrary", "library_at"]

OLDEST_VERSION: Final = 3_010_000
"""3.1.0, on the scale of ``jent_version``. Older ones do not let a caller demand health tests."""

BLOCK_BYTES: Final = 32
"""What one round of measurements yields: a SHA3-256 digest."""

_FORCE_FIPS: Final = 1 << 5
"""``JENT_FORCE_FIPS``: without it the health tests of SP 800-90B do not run."""

_NAMES: Final = {
    "darwin": ("libjitterentropy.3.dylib", "libjitterentropy.dylib"),
    "linux": ("libjitterentropy.so.3", "libjitterentropy.so"),
}

_INIT_ERRORS: Final[Mapping[int, str]] = {
    1: "there is no timer",
    2: "the timer is too coarse",
    3: "the timer runs backwards",
    4: "the timer varies too little",
    5: "the variations of the timer do not vary",
    6: "the variations of the timer vary too little",
    8: "too many measurements were stuck",
    9: "a health test failed",
    10: "the repetition count test failed",
    11: "the hash fails its self-test",
    12: "there is no memory",
    13: "the analysis of the timer fails its self-test",
}

_READ_ERRORS: Final[Mapping[int, str]] = {
    -1: "it is not initialised",
    -2: "the repetition count test of its time differences failed",
    -3: "the adaptive proportion test of its time differences failed",
    -4: "its timer thread could not be started",
    -5: "the lag predictor test of its time differences failed",
    -6: "a health test of its time differences failed for good",
    -7: "a health test of its time differences failed for good",
    -8: "a health test of its time differences failed for good",
}


class JitterError(Exception):
    """The library cannot be used, or refuses to deliver."""


class JitterLibrary:
    """The functions of one libjitterentropy.

    Args:
        path: Where it is; the one of the system if empty.

    Raises:
        JitterError: When there is none, or one that is too old.
    """

    def __init__(self, path: str = "") -> None:
        self._functions = _loaded(path)
        try:
            self._declare()
        except AttributeError as error:
            raise JitterError(f"{path or 'libjitterentropy'} lacks a function: {error}") from error
        if self.version_number < OLDEST_VERSION:
            raise JitterError(
                f"libjitterentropy {self.version} is too old; install 3.1.0 or a later one"
            )

    @property
    def version_number(self) -> int:
        """The version on the scale of ``jent_version``: 3040100 for 3.4.1."""
        return int(self._functions.jent_version())

    @property
    def version(self) -> str:
        """The version as text."""
        number = self.version_number
        return f"{number // 1_000_000}.{number // 10_000 % 100}.{number // 100 % 100}"

    def collector(self, oversampling: int) -> Collector:
        """Returns a new collector, after the start-up tests of the library.

        Args:
            oversampling: How many time differences count as one bit of entropy; 0 leaves that to
                the library.

        Raises:
            JitterError: When a test fails, or there is no memory.
        """
        code = int(self._functions.jent_entropy_init_ex(oversampling, _FORCE_FIPS))
        if code:
            why = _INIT_ERRORS.get(code, f"its start-up tests return {code}")
            raise JitterError(f"libjitterentropy cannot be used on this machine: {why}")
        handle = self._functions.jent_entropy_collector_alloc(oversampling, _FORCE_FIPS)
        if not handle:
            raise JitterError("libjitterentropy has no collector to give; free some memory")
        return Collector(self._functions, handle)

    def _declare(self) -> None:
        functions = self._functions
        functions.jent_version.argtypes = []
        functions.jent_version.restype = ctypes.c_uint
        functions.jent_entropy_init_ex.argtypes = [ctypes.c_uint, ctypes.c_uint]
        functions.jent_entropy_init_ex.restype = ctypes.c_int
        functions.jent_entropy_collector_alloc.argtypes = [ctypes.c_uint, ctypes.c_uint]
        functions.jent_entropy_collector_alloc.restype = ctypes.c_void_p
        functions.jent_entropy_collector_free.argtypes = [ctypes.c_void_p]
        functions.jent_entropy_collector_free.restype = None
        functions.jent_read_entropy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        functions.jent_read_entropy.restype = ctypes.c_ssize_t


class Collector:
    """One collector of the library, for one thread at a time.

    Args:
        functions: The library.
        handle: What ``jent_entropy_collector_alloc`` returned.
    """

    def __init__(self, functions: ctypes.CDLL, handle: int) -> None:
        self._functions = functions
        self._handle: int | None = handle

    def read(self, n: int) -> bytes:
        """Returns *n* bytes, at least one, of time differences that are measured by this call.

        Raises:
            JitterError: When a health test fails. The collector is of no use then.
        """
        buffer = ctypes.create_string_buffer(n)
        code = int(self._functions.jent_read_entropy(self._handle, buffer, n))
        if code != n:
            why = _READ_ERRORS.get(code, f"it returns {code} for {n} bytes")
            raise JitterError(f"libjitterentropy delivers nothing: {why}")
        return buffer.raw

    def free(self) -> None:
        """Erases and frees it. May be called more than once."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._functions.jent_entropy_collector_free(handle)


@lru_cache(maxsize=8)
def library_at(path: str) -> JitterLibrary:
    """Returns the library at *path*, or the system's, loaded once.

    Raises:
        JitterError: As the class does; a library that is missing is looked for again.
    """
    return JitterLibrary(path)


def _loaded(path: str) -> ctypes.CDLL:
    reasons = []
    for name in (path,) if path else _NAMES.get(sys.platform, ()):
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
    if path:
        raise JitterError(f"{reasons[0]}; set QR_JITTERENTROPY_LIBRARY to the file of the library")
    raise JitterError(
        "libjitterentropy is not installed; install it with the system's packages, for example "
        "'libjitterentropy3' (Debian, Ubuntu) or 'jitterentropy' (Fedora, Arch), or set "
        "QR_JITTERENTROPY_LIBRARY to its file"
    )
