# SPDX-License-Identifier: Apache-2.0
"""Findings of a check, and how the failure of a check becomes a finding, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["LEVELS", "Finding", "Level", "ReportSection", "examined", "in_one_line", "worst"]

Level = Literal["ok", "skipped", "warning", "problem"]

LEVELS: Final[tuple[Level, ...]] = ("ok", "skipped", "warning", "problem")
"""From harmless to grave. Only a problem makes tokens wrong, or keeps vLLM from starting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    section: str
    """Name of the section that it belongs to."""
    check: str
    """What was checked."""
    level: Level
    """How serious it is."""
    found: str
    """The result of the check."""
    remedy: str = ""
    """What to do about it, empty if nothing is needed."""


@dataclass(frozen=True, slots=True)
class ReportSection:
    """Makes the findings of one section."""

    name: str
    """Name of the section."""

    def ok(self, check: str, found: str) -> Finding:
        """Returns a finding that is as it should be."""
        return Finding(section=self.name, check=check, level="ok", found=found)

    def skipped(self, check: str, found: str, remedy: str = "") -> Finding:
        """Returns the finding of a check that could not be made, with the reason."""
        return self._make(check, "skipped", found, remedy)

    def warning(self, check: str, found: str, remedy: str) -> Finding:
        """Returns a finding that the operator should know about."""
        return self._make(check, "warning", found, remedy)

    def problem(self, check: str, found: str, remedy: str) -> Finding:
        """Returns a finding that has to be resolved before vLLM is started."""
        return self._make(check, "problem", found, remedy)

    def _make(self, check: str, level: Level, found: str, remedy: str) -> Finding:
        return Finding(section=self.name, check=check, level=level, found=found, remedy=remedy)


def examined(
    section: ReportSection, check: str, look: Callable[[], Iterable[Finding]]
) -> list[Finding]:
    """Returns the findings of *look*; its own failure is reported as a problem.

    Args:
        section: The section that the findings belong to.
        check: Name of the check, used if it fails.
        look: Makes the check.
    """
    findings: list[Finding] = []
    try:
        findings.extend(look())
    # The environment may be broken in any way, and third-party code may even leave by sys.exit().
    except (Exception, SystemExit) as error:
        message = f"could not be checked to the end: {in_one_line(error)}"
        findings.append(
            section.problem(check, message, "fix what the message names, then try again")
        )
    return findings


def in_one_line(error: BaseException) -> str:
    """Returns the type of *error* and the most informative line of its text: the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def worst(findings: Iterable[Finding]) -> Level:
    """Returns the gravest level of *findings*."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
