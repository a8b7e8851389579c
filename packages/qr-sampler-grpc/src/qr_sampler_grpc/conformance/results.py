# SPDX-License-Identifier: Apache-2.0
"""How a conformance case ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CaseResult", "NonconformanceError", "NotOfferedError", "Outcome"]

Outcome = Literal["passed", "failed", "not offered", "not judged"]


class NonconformanceError(Exception):
    """The server does not do what the case asks for; the words state what it did."""


class NotOfferedError(Exception):
    """The server lacks the optional feature of the case; the words state how that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """The outcome of one case."""

    case: str
    """Id of the case."""
    checks: str
    """What was checked."""
    level: Literal["must", "should"]
    """Whether clients rely on it."""
    outcome: Outcome
    """How it ended."""
    words: str
    """What happened, empty when there is nothing to add."""
    spent_bytes: int
    """Random bytes that arrived."""
