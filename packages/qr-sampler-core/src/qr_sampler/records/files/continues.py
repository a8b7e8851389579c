# SPDX-License-Identifier: Apache-2.0
"""How a file begins that goes on from another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from qr_sampler.records.chain import Item

__all__ = ["Continues", "Header"]


@dataclass(frozen=True, slots=True)
class Continues:
    """The file that another one goes on from."""

    file: str
    """Its name without the directory."""
    lines: int
    """Number of its whole lines."""
    head: str
    """Digest of the last of them, which is ``prev`` of the first line of the other file."""


Header: TypeAlias = Callable[[Continues | None], Sequence[Item]]
"""Returns what a file begins with, given the file that it goes on from, if it does."""
