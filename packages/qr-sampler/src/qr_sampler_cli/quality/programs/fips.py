# SPDX-License-Identifier: Apache-2.0
"""``rngtest`` of rng-tools: the four tests of FIPS 140-2 on blocks of 20,000 bits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Final

from qr_sampler_cli.quality.programs.program import (
    ProgramReport,
    TestProgram,
    first_line,
    not_judged,
)
from qr_sampler_cli.quality.programs.running import run_program
from qr_sampler_cli.quality.tails import binomial_tail

__all__ = ["FipsTests"]

FAILING_SHARE: Final = 1e-3
"""Bound of the share of good blocks that fail, for p-values that are never too small: of 399,999
blocks of ``/dev/urandom`` 297 failed with version 5, a share of (7.4 +- 0.4) 1e-4."""

_ENDED: Final = frozenset((0, 1))
"""Exit status when no block fails, and when one does."""


class FipsTests(TestProgram):
    """Reads the counts that ``rngtest`` prints when its input ends."""

    executable: ClassVar[str] = "rngtest"
    about: ClassVar[str] = "the tests of FIPS 140-2, in the package rng-tools"
    # 32 bits before the first block are not tested.
    least_bytes: ClassVar[int] = 2_504

    def judge(self, path: str, sample: Path, directory: Path, timeout_s: float) -> ProgramReport:
        """See :meth:`TestProgram.judge`."""
        version = first_line(path, "--version", directory)
        run = run_program([path], directory=directory, timeout_s=timeout_s, stdin=sample)
        counts = [
            re.search(rf"FIPS 140-2 {word}: (\d{{1,12}})", run.output)
            for word in ("successes", "failures")
        ]
        passed, failed = (int(match[1]) if match else -1 for match in counts)
        blocks = passed + failed
        if run.status not in _ENDED or min(passed, failed) < 0 or not blocks:
            return not_judged(self, path, "did not say how many blocks passed", version, run)
        return ProgramReport(
            program=self.executable,
            outcome="judged",
            words=f"{failed:,} of {blocks:,} blocks of 20,000 bits fail",
            version=version,
            p_values={"FIPS 140-2": binomial_tail(failed, blocks, FAILING_SHARE)},
        )
