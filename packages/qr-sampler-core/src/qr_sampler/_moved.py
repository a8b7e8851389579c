# SPDX-License-Identifier: Apache-2.0
"""Modules whose names have moved keep serving them, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["moved"]


def moved(old: str, new: str) -> Callable[[str], Any]:
    """Returns the ``__getattr__`` of the module *old*, whose names are now those of *new*."""
    names = import_module(new)

    def attribute(name: str) -> Any:
        if name not in names.__all__:
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=2)
        return getattr(names, name)

    return attribute
