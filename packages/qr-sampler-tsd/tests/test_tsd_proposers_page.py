# SPDX-License-Identifier: Apache-2.0
"""``docs/tsd/proposers.md``: its example runs, its links and figures are right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tsd" / "proposers.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")


def test_the_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert max(map(len, example.splitlines())) <= 100
    subprocess.run([sys.executable, "-W", "error", "-c", example], check=True, cwd=tmp_path)


def test_the_memory_of_a_table_is_that_of_the_formula() -> None:
    text, vocab_size, k = PAGE.read_text("utf-8"), 151_936, 64
    megabytes = vocab_size * (5 * k + 14 + 12) / 1e6
    assert f"{megabytes:.0f} MB for {vocab_size:,} tokens and K = {k}" in text


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)]+)\)", PAGE.read_text("utf-8"))
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []
