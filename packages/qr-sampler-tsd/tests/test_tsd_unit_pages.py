# SPDX-License-Identifier: Apache-2.0
"""The pages on payload and sampling units: commands and figures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.tsu import PBitGibbsTSU, PBitTreeTSU, sweeps_needed

ROOT = Path(__file__).resolve().parents[3]
PAYLOAD, UNITS = (ROOT / "docs" / "tsd" / f"{name}.md" for name in ("payload", "sampling-units"))

pytestmark = pytest.mark.skipif(not UNITS.exists(), reason="the pages are not part of an sdist")


def rows(first: str) -> dict[str, list[str]]:
    """Returns the lines of the table whose head begins with *first*, by their first cell."""
    _, _, rest = UNITS.read_text("utf-8").partition(f"| {first} |")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_the_command_runs() -> None:
    """With fewer draws, too few to find fault with what should fail: that is status 1."""
    (command,) = re.findall(r"```sh\n(.*?)```", UNITS.read_text("utf-8"), flags=re.DOTALL)
    program, script = command.split()
    assert program == "python"
    few = [sys.executable, "-W", "error", str(ROOT / script), "--samples=3000", "--repetitions=1"]
    done = subprocess.run(few, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    for head in ("| unit | gate |", "| bits of the converter |", "| sweeps | flat |"):
        assert head in done.stdout
    assert "| needed for 1e-06 |" in done.stdout
    assert "mixing after 8 sweeps" in done.stderr


def test_the_least_tails_of_version_1_are_computed() -> None:
    text = PAYLOAD.read_text("utf-8")
    _, _, rest = text.partition("| V | 32,000")
    sizes, _, figures = ("| V | 32,000" + rest).splitlines()[:3]
    for size, figure in zip(sizes[:-1].split("|")[2:], figures[:-1].split("|")[2:], strict=True):
        due = 100 * int(size.replace(",", "")) * 2.0**-25
        assert float(figure.strip().rstrip(" %")) == pytest.approx(due, rel=0.02)


def variation(unit: PBitTreeTSU | PBitGibbsTSU, name: str) -> float:
    psi = golden_payloads()[name]
    return float(abs(unit.law(psi).cell_probs - psi.law().cell_probs).sum()) / 2


def test_the_figures_of_converters_are_computed() -> None:
    table = rows("bits of the converter")
    assert table
    for bits, figures in table.items():
        unit = PBitTreeTSU(int(bits))
        due = [f"{variation(unit, name):.1e}" for name in ("flat", "warm", "cold")]
        assert figures == [*due, f"{unit.tv_bound(64):.1e}"]


def test_the_figures_of_mixing_are_computed() -> None:
    table = rows("sweeps")
    for name, column in (("flat", 0), ("warm", 1), ("cold", 2)):
        for sweeps in ("1", "2", "3", "4", "6", "8"):
            computed, _, measured = table[sweeps][column].partition(" / ")
            assert computed == f"{variation(PBitGibbsTSU(int(sweeps), 1.0), name):.4f}"
            # Two floors of 200,000 draws.
            assert abs(float(measured) - float(computed)) < 0.015
        for target in (1e-3, 1e-6):
            needed = sweeps_needed(golden_payloads()[name], target)
            assert table[f"needed for {target:g}"][column] == str(needed)
