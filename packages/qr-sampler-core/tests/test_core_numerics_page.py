# SPDX-License-Identifier: Apache-2.0
"""``docs/numerics.md``: its example runs, its numbers and links are right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qr_sampler.selection import unit_exponent

PAGE = Path(__file__).resolve().parents[3] / "docs" / "numerics.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert max(map(len, example.splitlines())) <= 100
    subprocess.run([sys.executable, "-W", "error", "-c", example], check=True)


def test_the_bounds_are_those_of_the_formulas() -> None:
    text = PAGE.read_text("utf-8")
    vocab_size = 151_936
    variation = vocab_size * (0.5 + 2.0**-10) / 2.0 ** unit_exponent(vocab_size)
    truncated = (vocab_size - 1) / 2.0**36
    assert f"V (1/2 + 2^-10) / 2^b: {variation:.1e} ".replace("e-0", "e-") in text
    assert f"(V \N{MINUS SIGN} 1) / 2^36, {truncated:.1e} ".replace("e-0", "e-") in text
    assert unit_exponent(2**18) == 35 > unit_exponent(2**18 + 1)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)]+)\)", PAGE.read_text("utf-8"))
    assert targets
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []
