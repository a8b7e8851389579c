# SPDX-License-Identifier: Apache-2.0
"""The pages on payload and sampling units: examples, commands, figures and links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.tsu import PBitGibbsTSU, PBitTreeTSU, sweeps_needed

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "docs" / "tsd" / name for name in ("payload.md", "sampling-units.md")]
UNITS = PAGES[1]

pytestmark = pytest.mark.skipif(not UNITS.exists(), reason="the pages are not part of an sdist")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)


def rows(first: str) -> dict[str, list[str]]:
    """Returns the lines of the table whose head begins with *first*, by their first cell."""
    _, _, rest = UNITS.read_text("utf-8").partition(f"| {first} |")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page: Path) -> None:
    examples = blocks(page, "python")
    assert examples
    for example in examples:
        assert max(map(len, example.splitlines())) <= 100
        exec(example, {})


def test_the_command_runs() -> None:
    """With fewer draws, too few to find fault with what should fail: that is status 1."""
    (command,) = blocks(UNITS, "sh")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_least_tails_of_version_1_are_computed() -> None:
    text = PAGES[0].read_text("utf-8")
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
