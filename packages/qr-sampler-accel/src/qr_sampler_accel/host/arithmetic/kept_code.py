# SPDX-License-Identifier: Apache-2.0
"""Machine code of compiled loops, kept on disk from one process to the next.

Numba keeps code, but takes it for current as long as the one file with the function is; a loop
holds copies of the loops that it calls, which stand in other files. Here code is current as long as
every source that can have become part of it is, to the last byte; the code itself says which those
were, since Numba writes index and code one after the other, and other processes do, too.
"""

from __future__ import annotations

import hashlib
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba.core import caching, config

import qr_sampler.selection
import qr_sampler.temperature

__all__ = ["keep", "sources_digest"]

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def sources_digest() -> str:
    """Returns the SHA-256 of all modules that loops or their constants come from, hexadecimal.

    Raises:
        OSError: When a source cannot be read, or there are none.
    """
    folders = (
        Path(__file__).parents[1],
        *(Path(each) for each in qr_sampler.selection.__path__),
        *(Path(each) for each in qr_sampler.temperature.__path__),
    )
    digest = hashlib.sha256()
    for folder in folders:
        files = sorted(folder.rglob("*.py"))
        if not files:
            raise FileNotFoundError(f"{folder} holds no sources")
        for file in files:
            source = file.read_bytes()
            digest.update(f"{file.relative_to(folder)} {len(source)}\n".encode())
            digest.update(source)
    return digest.hexdigest()


class _Stamped:
    """A place for code that knows whether it is current."""

    def get_source_stamp(self) -> str:
        return sources_digest()

    def ensure_cache_path(self) -> None:
        try:
            super().ensure_cache_path()  # type: ignore[misc]
        except OSError:
            # What somebody else has kept can be read without being allowed to write.
            if not any(Path(self.get_cache_path()).glob("*.nbi")):  # type: ignore[attr-defined]
                raise


class _Chosen(_Stamped, caching.UserProvidedCacheLocator):  # type: ignore[misc]
    """Where NUMBA_CACHE_DIR says."""


class _BesideSource(_Stamped, caching.InTreeCacheLocator):  # type: ignore[misc]
    """In ``__pycache__``, if whoever runs the process may write there, or somebody did."""


class _OfUser(_Stamped, caching.UserWideCacheLocator):  # type: ignore[misc]
    """In the user's own cache."""


class _Code(caching.CompileResultCacheImpl):  # type: ignore[misc]
    """Code with the digest of its sources."""

    _locator_classes = (_Chosen, _BesideSource, _OfUser)

    def reduce(self, cres: Any) -> Any:
        return sources_digest(), super().reduce(cres)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        digest, code = payload
        return super().rebuild(target_context, code) if digest == sources_digest() else None


class _KeptCode(caching.FunctionCache):  # type: ignore[misc]
    """Kept code of one function; what cannot be read or written is compiled, and no more."""

    _impl_class = _Code

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        # A file that another program has written, or half of one, may raise anything.
        except Exception as error:
            _warn_once(f"code that was kept cannot be read; it is compiled anew: {error!r}")
            self._forget()
            return None
        # Processes that write at the same time may give one file to two signatures.
        return found if found is None or found.signature.args == tuple(sig) else None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        # The index is read before it is written.
        except Exception as error:
            _warn_once(f"compiled code cannot be kept; each process compiles it: {error!r}")

    def _forget(self) -> None:
        """Makes room for code that can be read."""
        try:
            self.flush()
        except OSError as error:
            _warn_once(f"code that was kept cannot be overwritten: {error!r}")


@lru_cache(maxsize=64)
def _warn_once(text: str) -> None:
    """Says something of one loop that is true of all of them."""
    logger.warning("%s", text)


def keep(function: Any) -> None:
    """Tells a function of Numba to keep its code where there is a place for it."""
    # Somebody's own choice of places would not know when the code is current. Without a compiler
    # there is no code.
    if config.CACHE_LOCATOR_CLASSES or not hasattr(function, "py_func"):
        return
    try:
        function._cache = _KeptCode(function.py_func)  # noqa: SLF001
    except (OSError, RuntimeError) as error:
        logger.info("compiled code is not kept: %s", error)
