# SPDX-License-Identifier: Apache-2.0
"""``ea_non_iid`` and ``ea_iid`` of NIST's SP800-90B_EntropyAssessment, by their JSON."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Final

from qr_sampler_cli.quality.programs.program import (
    ProgramReport,
    TestProgram,
    first_line,
    not_judged,
)
from qr_sampler_cli.quality.programs.running import MOST_OUTPUT, run_program

__all__ = ["IidTests", "NonIidEstimates"]

LEAST_BYTES: Final = 1_000_000
"""Samples that section 3.1.1 of SP 800-90B asks for."""

_ABOUT: Final = "NIST's SP800-90B_EntropyAssessment, in the package sp800-90b-entropy-assessment"

_CHECKS: Final = {
    "passedChiSquareTests": "chi-square",
    "passedLongestRepeatedSubstringTest": "longest repeated substring",
    "passedIidPermutationTests": "permutations",
}


class _NistProgram(TestProgram):
    least_bytes: ClassVar[int] = LEAST_BYTES
    about: ClassVar[str] = _ABOUT

    def judge(self, path: str, sample: Path, directory: Path, timeout_s: float) -> ProgramReport:
        """See :meth:`TestProgram.judge`."""
        version = first_line(path, "--version", directory)
        answer = directory / "answer.json"
        arguments = [path, "-i", "-a", "-q", "-o", answer.name, sample.name, "8"]
        run = run_program(arguments, directory=directory, timeout_s=timeout_s)
        if run.failure or run.status != 0:
            return not_judged(self, path, f"ended with status {run.status}", version, run)
        cases = _cases(answer)
        assessed = _assessed(cases)
        if assessed is None:
            return not_judged(self, path, "wrote no JSON with a verdict", version, run)
        version = version or _tool_version(answer)
        return self.report(cases, assessed, version)

    @abstractmethod
    def report(self, cases: list[dict[str, Any]], assessed: float, version: str) -> ProgramReport:
        """Returns what the answer says.

        Args:
            cases: The test cases of the answer.
            assessed: Min-entropy of a byte in bits.
            version: What the program says of its version.
        """


class NonIidEstimates(_NistProgram):
    """The ten estimators of section 6.3."""

    executable: ClassVar[str] = "ea_non_iid"

    def report(self, cases: list[dict[str, Any]], assessed: float, version: str) -> ProgramReport:
        """Returns the min-entropy by the smallest of the estimates."""
        return ProgramReport(
            program=self.executable,
            outcome="judged",
            words=f"min-entropy {assessed:.4f} bits a byte, the least of ten estimates",
            version=version,
            figures={"min_entropy": assessed},
        )


class IidTests(_NistProgram):
    """The tests of section 5, by whose own levels a good source fails one in some hundred times."""

    executable: ClassVar[str] = "ea_iid"

    def report(self, cases: list[dict[str, Any]], assessed: float, version: str) -> ProgramReport:
        """Returns which of the three groups of tests the sample fails."""
        failed = tuple(
            name for key, name in _CHECKS.items() for case in cases if case.get(key) is False
        )
        verdict = f"fails {' and '.join(failed)}" if failed else "passes all three groups of tests"
        return ProgramReport(
            program=self.executable,
            outcome="judged",
            words=f"{verdict}; {assessed:.4f} bits a byte, if they are independent",
            version=version,
            failed=failed,
            figures={"min_entropy_if_iid": assessed},
        )


def _answer(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(MOST_OUTPUT))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _cases(path: Path) -> list[dict[str, Any]]:
    answer = _answer(path)
    cases = answer.get("testCases")
    if answer.get("errorLevel") != 0 or not isinstance(cases, list):
        return []
    return [case for case in cases if isinstance(case, dict)]


def _assessed(cases: list[dict[str, Any]]) -> float | None:
    """Returns the min-entropy of a byte that the last case states."""
    told = [case["hAssessed"] for case in cases if isinstance(case.get("hAssessed"), (int, float))]
    return float(told[-1]) if told and 0.0 <= told[-1] <= 8.0 else None


def _tool_version(path: Path) -> str:
    version = _answer(path).get("toolVersion")
    return version if isinstance(version, str) else ""
