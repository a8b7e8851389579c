# SPDX-License-Identifier: Apache-2.0
"""What a test program is asked, and what becomes of its answer."""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from qr_sampler_cli.quality.programs.running import ProgramRun, run_program

__all__ = ["ProgramReport", "TestProgram", "asked", "not_judged"]

Outcome = Literal["judged", "not judged", "not installed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramReport:
    """What a program said of a sample."""

    program: str
    """What it is called."""
    outcome: Outcome
    """Whether it has judged the sample."""
    words: str
    """What it found, or why it has not judged."""
    version: str = ""
    """What it says of its version; empty if it does not."""
    path: str = ""
    """Where it is."""
    p_values: Mapping[str, float] = field(default_factory=dict)
    """By name of the test, p-values of uniform and independent bytes."""
    failed: tuple[str, ...] = ()
    """Tests without a p-value that the sample fails by the program's own rule."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Other numbers, by name."""
    seconds: float = 0.0
    """How long it took."""


class TestProgram(ABC):
    """A program of others that tests bytes."""

    __test__: ClassVar[bool] = False
    executable: ClassVar[str]
    """Name that is looked for on the PATH."""
    about: ClassVar[str]
    """What it is, for those who do not have it."""
    least_bytes: ClassVar[int] = 0
    """Bytes below which it cannot judge."""

    @abstractmethod
    def judge(self, path: str, sample: Path, directory: Path, timeout_s: float) -> ProgramReport:
        """Returns what the program at *path* says of a file.

        Args:
            path: The program.
            sample: The file.
            directory: Private and empty, removed afterwards.
            timeout_s: Longest time in seconds.
        """


def asked(
    programs: Iterable[TestProgram], data: bytes, timeout_s: float, wanted: frozenset[str] | None
) -> list[ProgramReport]:
    """Returns the report of every program, of those that are not installed, too.

    Args:
        programs: The programs.
        data: The sample.
        timeout_s: Longest time of each in seconds.
        wanted: Names of those that are asked; ``None`` asks all.
    """
    reports = []
    for program in programs:
        if wanted is None or program.executable in wanted:
            with tempfile.TemporaryDirectory(prefix="qr-sampler-quality-") as name:
                reports.append(_asked(program, data, Path(name), timeout_s))
    return reports


def _asked(program: TestProgram, data: bytes, directory: Path, timeout_s: float) -> ProgramReport:
    path = shutil.which(program.executable)
    if path is None:
        return ProgramReport(
            program=program.executable, outcome="not installed", words=program.about
        )
    if len(data) < program.least_bytes:
        return not_judged(program, path, f"needs at least {program.least_bytes:,} bytes")
    sample = directory / "sample.bin"
    sample.write_bytes(data)
    began = time.monotonic()
    report = program.judge(path, sample, directory, timeout_s)
    return ProgramReport(
        program=report.program,
        outcome=report.outcome,
        words=report.words,
        version=report.version[:80],
        path=path,
        p_values=report.p_values,
        failed=report.failed,
        figures=report.figures,
        seconds=time.monotonic() - began,
    )


def not_judged(
    program: TestProgram, path: str, reason: str, version: str = "", run: ProgramRun | None = None
) -> ProgramReport:
    """Returns the report of a program that gave no verdict, with the last line that it said."""
    lines = [line.strip() for line in run.output.splitlines() if line.strip()] if run else []
    said = f"; it said: {lines[-1][:200]}" if lines else ""
    return ProgramReport(
        program=program.executable,
        outcome="not judged",
        words=f"{(run.failure if run else '') or reason}{said}",
        version=version,
        path=path,
    )


def first_line(path: str, option: str, directory: Path) -> str:
    """Returns the first line that a program says when it is asked for its version."""
    run = run_program([path, option], directory=directory, timeout_s=10.0)
    lines = [line.strip() for line in run.output.splitlines() if line.strip()]
    return lines[0] if run.status == 0 and lines else ""
