# SPDX-License-Identifier: Apache-2.0
"""What is tested, as the process that tests it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["DONE", "Kind", "Subject"]

DONE: Final = "done"
"""Key of the line that a step tells last: a component can end its process with any status."""

Kind = Literal["source", "amplifier", "strategy"]


@dataclass(frozen=True, slots=True)
class Subject:
    """An installed component, and how gently it is to be tested."""

    kind: Kind
    """What it is."""
    name: str
    """Name that the configuration has for it."""
    stages: tuple[str, ...] = ()
    """Names of the stages that are run."""
    interval_s: float = 0.0
    """Seconds for each request, for the quota."""
    skipped_clauses: tuple[str, ...] = field(default=())
    """Clauses of the contract that are left out."""
