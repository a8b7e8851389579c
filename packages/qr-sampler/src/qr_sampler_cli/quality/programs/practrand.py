# SPDX-License-Identifier: Apache-2.0
"""``RNG_test`` of PractRand, by the anomalies that it prints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Final

from qr_sampler_cli.quality.programs.program import ProgramReport, TestProgram, not_judged
from qr_sampler_cli.quality.programs.running import run_program

__all__ = ["PractRand"]

_NUMBER: Final = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"

_ANOMALY: Final = re.compile(rf"^\s+(\S+)\s+R=\s*\S+\s+p\s*~?=\s*(1-)?\s*{_NUMBER}", re.MULTILINE)


class PractRand(TestProgram):
    """Feeds the sample to its standard input and reads the last length that it tested."""

    executable: ClassVar[str] = "RNG_test"
    about: ClassVar[str] = "PractRand, from its own site"
    least_bytes: ClassVar[int] = 2**20

    def judge(self, path: str, sample: Path, directory: Path, timeout_s: float) -> ProgramReport:
        """See :meth:`TestProgram.judge`."""
        kilobytes = 2 ** ((sample.stat().st_size // 1024).bit_length() - 1)
        arguments = [path, "stdin8", "-tlmin", f"{kilobytes}KB", "-tlmax", f"{kilobytes}KB"]
        run = run_program(arguments, directory=directory, timeout_s=timeout_s, stdin=sample)
        match = re.search(r"PractRand version (\S{1,40})", run.output)
        version = match[0] if match else ""
        results, smallest = _last_length(run.output)
        if run.failure or not results:
            return not_judged(self, path, "printed no results", version, run)
        told = f"{results:,} results of {kilobytes:,} KiB, "
        return ProgramReport(
            program=self.executable,
            outcome="judged",
            words=told + (f"the smallest p {smallest:.3g}" if smallest < 1.0 else "no anomaly"),
            version=version,
            # Only anomalies are printed: the smallest p-value counts for all of them.
            p_values={"smallest of all": min(1.0, 2.0 * results * smallest)},
        )


def _last_length(output: str) -> tuple[int, float]:
    """Returns the number of results of the last length, and their smallest tail; 0 for none."""
    told = output.rpartition("length=")[2]
    if calm := re.search(r"no anomalies in (\d{1,9}) test result", told):
        return int(calm[1]), 1.0
    others = re.search(r"and (\d{1,9}) test result\(s\) without anomalies", told)
    tails = [float(number) for _, _, number in _ANOMALY.findall(told)]
    if not tails:
        return 0, 1.0
    return len(tails) + (int(others[1]) if others else 0), min(tails)
