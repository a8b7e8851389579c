# SPDX-License-Identifier: Apache-2.0
"""How loops are compiled, and where their machine code is kept from one process to the next.

Compiling all of them takes longer than starting an engine. Numba keeps code on disk, but takes it
for current as long as the one file with the function is; a loop holds copies of the loops that it
calls, which stand in other files. Here code is current as long as every source that can have become
part of it is, to the last byte.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core import caching, config

import qr_sampler.selection
import qr_sampler.temperature

__all__ = ["compiled", "contracted", "kept", "sources_digest", "summing"]

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def sources_digest() -> str:
    """Returns the SHA-256 of all modules that loops or their constants come from, hexadecimal."""
    folders = (
        Path(__file__).parents[1],
        *(Path(each) for each in qr_sampler.selection.__path__),
        *(Path(each) for each in qr_sampler.temperature.__path__),
    )
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            source = file.read_bytes()
            digest.update(f"{file.relative_to(folder)} {len(source)}\n".encode())
            digest.update(source)
    return digest.hexdigest()


class _Stamp:
    """Says whether kept code is current."""

    def get_source_stamp(self) -> str:
        return sources_digest()


class _Chosen(_Stamp, caching.UserProvidedCacheLocator):  # type: ignore[misc]
    """Where NUMBA_CACHE_DIR says."""


class _BesideSource(_Stamp, caching.InTreeCacheLocator):  # type: ignore[misc]
    """In ``__pycache__``, if whoever runs the process may write there."""


class _OfUser(_Stamp, caching.UserWideCacheLocator):  # type: ignore[misc]
    """In the user's own cache."""


class _Code(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Chosen, _BesideSource, _OfUser)


class _KeptCode(caching.FunctionCache):  # type: ignore[misc]
    """Kept code of one function; what cannot be read or written is compiled, and no more."""

    _impl_class = _Code

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        # A file that another program has written, or half of one, may raise anything.
        except Exception as error:
            logger.warning("code that was kept cannot be read; it is compiled anew: %r", error)
            self._forget()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            logger.warning("compiled code cannot be kept; each process compiles it: %s", error)

    def _forget(self) -> None:
        """Makes room for code that can be read."""
        try:
            self.flush()
        except OSError as error:
            logger.warning("code that was kept cannot be overwritten: %s", error)


def kept(function: Any) -> Any:
    """Returns a function of Numba, told to keep its code where there is a place for it."""
    # Somebody's own choice of places would not know when the code is current.
    if not config.CACHE_LOCATOR_CLASSES and hasattr(function, "py_func"):
        try:
            function._cache = _KeptCode(function.py_func)  # noqa: SLF001
        except (OSError, RuntimeError) as error:
            logger.info("compiled code is not kept: %s", error)
    return function


_plain: Any = numba.njit(nogil=True, error_model="numpy")
_reordering: Any = numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
_contracting: Any = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles a loop that does what its source says, operation by operation.

    Arguments are arrays and numbers; arrays that a loop does not read first are working memory.
    """
    return kept(_plain(function))


def summing(function: Callable[..., Any]) -> Any:
    """Compiles sums whose order does not matter: of whole numbers below 2**53, or within bounds."""
    return kept(_reordering(function))


def contracted(function: Callable[..., Any]) -> Any:
    """Compiles a loop in which a product and a sum may become one instruction.

    That means less rounding, within the same bounds.
    """
    return kept(_contracting(function))
