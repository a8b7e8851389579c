# SPDX-License-Identifier: Apache-2.0
"""How loops are compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba

__all__ = ["compiled", "contracted", "summing"]

logger = logging.getLogger(__name__)

try:
    from qr_sampler_accel.host.arithmetic.kept_code import keep
# Numba promises nothing about how it keeps code. A release that does it otherwise compiles.
except (AttributeError, ImportError) as error:  # pragma: no cover
    logger.warning("compiled code is not kept with this release of Numba: %s", error)

    def keep(function: Any) -> None:
        """Keeps nothing."""


_plain: Any = numba.njit(nogil=True, error_model="numpy")
_reordering: Any = numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
_contracting: Any = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles a loop that does what its source says, operation by operation.

    Arguments are arrays and numbers; arrays that a loop does not read first are working memory.
    """
    return _kept(_plain(function))


def summing(function: Callable[..., Any]) -> Any:
    """Compiles sums whose order does not matter: of whole numbers below 2**53, or within bounds."""
    return _kept(_reordering(function))


def contracted(function: Callable[..., Any]) -> Any:
    """Compiles a loop in which a product and a sum may become one instruction.

    That means less rounding, within the same bounds.
    """
    return _kept(_contracting(function))


def _kept(function: Any) -> Any:
    keep(function)
    return function
