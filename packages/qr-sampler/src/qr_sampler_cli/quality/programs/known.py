# SPDX-License-Identifier: Apache-2.0
"""The programs that are looked for."""

from __future__ import annotations

from typing import Final

from qr_sampler_cli.quality.programs.dieharder import Dieharder
from qr_sampler_cli.quality.programs.fips import FipsTests
from qr_sampler_cli.quality.programs.nist import IidTests, NonIidEstimates
from qr_sampler_cli.quality.programs.practrand import PractRand
from qr_sampler_cli.quality.programs.program import TestProgram

__all__ = ["PROGRAMS"]

PROGRAMS: Final[tuple[TestProgram, ...]] = (
    NonIidEstimates(),
    IidTests(),
    Dieharder(),
    PractRand(),
    FipsTests(),
)
"""In the order in which they are asked."""
