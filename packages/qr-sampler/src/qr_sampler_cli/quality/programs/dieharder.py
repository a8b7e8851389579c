# SPDX-License-Identifier: Apache-2.0
"""``dieharder``: those of its tests whose appetite can be fitted to a sample."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from qr_sampler_cli.quality.programs.program import ProgramReport, TestProgram, not_judged
from qr_sampler_cli.quality.programs.running import ProgramRun, run_program

__all__ = ["Dieharder"]


class _Fitted(NamedTuple):
    """A test whose number of samples may be chosen."""

    number: int
    name: str
    words: int
    """Words of four bytes that one sample takes, counted by how often version 3.31.1 rewinds."""
    least: int
    """Samples below which the law of the test does not hold."""


TESTS: Final = (
    _Fitted(100, "sts_monobit", 1, 1_000),
    _Fitted(101, "sts_runs", 1, 1_000),
    # The rarest ranks have probabilities of 0.005 and 0.009: five of each are expected.
    _Fitted(2, "rank 32x32", 32, 1_000),
    _Fitted(3, "rank 6x8", 6, 1_000),
)

_FIELDS: Final = ("-p", "1", "-D", "test_name", "-D", "ntuple", "-D", "pvalues")
"""One p-value of all samples: of several, good bytes gave too many small and large ones here.
The rate of reading, which is printed by default, costs bytes."""

_SMALLEST: Final = 1e-8
"""P-values are printed with eight decimals."""


class Dieharder(TestProgram):
    """Runs one test after the other, each with as many samples as the bytes are enough for.

    With too few bytes ``dieharder`` reads its file again and again, and calls good bytes bad. A run
    that did so is not judged. Its standard parameters, for which gigabytes are needed, are for a
    run by hand: ``dieharder -a -g 201 -f FILE``.
    """

    executable: ClassVar[str] = "dieharder"
    about: ClassVar[str] = "Brown's battery, in the package dieharder"
    least_bytes: ClassVar[int] = 4 * 1_000 + 4_096

    def judge(self, path: str, sample: Path, directory: Path, timeout_s: float) -> ProgramReport:
        """See :meth:`TestProgram.judge`."""
        ends = time.monotonic() + timeout_s
        # The last piece of a sample may be read in part.
        words = (sample.stat().st_size - 4_096) // 4
        p_values: dict[str, float] = {}
        version = _version(path, directory)
        left_out = []
        for test in TESTS:
            samples = words // test.words
            if samples < test.least:
                left_out.append(test.name)
                continue
            arguments = [path, "-g", "201", "-f", sample.name, "-d", str(test.number)]
            arguments += ["-t", str(samples), *_FIELDS]
            run = run_program(
                arguments, directory=directory, timeout_s=max(1.0, ends - time.monotonic())
            )
            found = _p_values(run)
            if not found:
                return not_judged(self, path, f"gave no p-value of {test.name}", version, run)
            p_values[test.name] = found[0]
        told = f"{len(p_values)} p-values, the smallest {min(p_values.values()):.3g}"
        if left_out:
            told += f"; too few bytes for {', '.join(left_out)}"
        return ProgramReport(
            program=self.executable,
            outcome="judged",
            words=told,
            version=version,
            p_values={name: _two_sided(p) for name, p in p_values.items()},
        )


def _two_sided(p_value: float) -> float:
    """Returns a p-value for both ends; agreement that is too good is as improbable."""
    return min(1.0, 2.0 * max(_SMALLEST, min(p_value, 1.0 - p_value)))


def _p_values(run: ProgramRun) -> list[float]:
    """Returns the p-values of a run; none of one that failed or read its file again."""
    if run.status != 0 or "was rewound" in run.output:
        return []
    rows = re.findall(r"^[^|#]+\|\s*\d+\|\s*([01]\.\d+)\s*$", run.output, re.MULTILINE)
    return [float(row) for row in rows]


def _version(path: str, directory: Path) -> str:
    run = run_program([path, "-l"], directory=directory, timeout_s=10.0)
    match = re.search(r"dieharder version (\S{1,40})", run.output)
    return match[0] if match else ""
