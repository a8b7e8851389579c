# SPDX-License-Identifier: Apache-2.0
"""The page about tables and reports: all that it says to type runs, and its picture can be made."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "docs" / "analysis.md"
PICTURE = Path(__file__).resolve().parents[2] / "campaigns" / "evidence_picture.py"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository only")


def snippets() -> list[tuple[str, str]]:
    """Returns the language and the text of every snippet, in order."""
    return re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)


def test_all_that_is_to_be_typed_runs(
    tmp_path: Path,
    host: Any,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = host(tmp_path / "ledgers")
    for index in range(40):
        while len(made.running) < 4:
            made.add(20, condition=("HI", "LO", "baseline")[len(made.requests) % 3])
        made.step()
        if index % 10 == 0:
            made.flush()
    made.close()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "key.json").write_text('{"secret": "0123456789abcdef"}')
    monkeypatch.chdir(tmp_path)
    ran = 0
    for language, text in snippets():
        if language == "python":
            exec(compile(text, "analysis.md", "exec"), {})
            assert "['HI', 'LO', 'baseline']" in capsys.readouterr().out
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "qr-sampler"
            done = command(*arguments)
            assert done.exit_code == 0, (line, done.output)
            ran += 1
    assert ran == 7
    assert (tmp_path / "report" / "tests.csv").exists()
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "blind" / "tokens.parquet").exists()


def test_the_picture_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "evidence.svg"
    monkeypatch.setattr(sys, "argv", [PICTURE.name, str(made), "--tokens", "100"])
    runpy.run_path(str(PICTURE), run_name="__main__")
    drawn = made.read_text("utf-8")
    kept = (ROOT / "docs" / "evidence.svg").read_text("utf-8")
    for words in ("honest: bytes of mean 127.5", "biased: bytes of mean 127.6", "(e-process)"):
        assert words in drawn
        assert words in kept
