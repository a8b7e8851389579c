# SPDX-License-Identifier: Apache-2.0
"""The pages of ``docs/tsd``: their examples run, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "tsd"
NAMES = ["experiments", "names", "payload", "proposers", "sampling-units", "verification"]

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the pages are not part of an sdist")
every_page = pytest.mark.parametrize("name", NAMES)


@pytest.mark.slow
@every_page
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (FOLDER / f"{name}.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert examples
    for example in examples:
        assert max(map(len, example.splitlines())) <= 100
        exec(example, {})


@every_page
def test_the_links_lead_somewhere(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text("utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [target for target in targets if not (FOLDER / target).exists()] == []


def test_the_memory_of_a_table_is_that_of_the_formula() -> None:
    text, vocab_size, k = (FOLDER / "proposers.md").read_text("utf-8"), 151_936, 64
    megabytes = vocab_size * (5 * k + 14 + 12) / 1e6
    assert f"{megabytes:.0f} MB for {vocab_size:,} tokens and K = {k}" in text
