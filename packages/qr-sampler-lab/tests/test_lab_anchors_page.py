# SPDX-License-Identifier: Apache-2.0
"""What the pages show of anchors is there: commands with their options, and a program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from qr_sampler.records.chain import ZERO_HEAD, line_of
from qr_sampler_cli.main import app

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = DOCS / "ledger.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository only")


def shown() -> list[list[str]]:
    """Returns the words of every command in a block of the page."""
    blocks = re.findall(r"```text\n(qr-sampler .*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_commands_of_the_page_have_these_options() -> None:
    commands = shown()
    assert [words[1] for words in commands] == ["anchor", "audit"]
    group = get_command(app)
    context = typer.Context(group)
    for _, name, *arguments in commands:
        command = group.get_command(context, name)  # type: ignore[attr-defined]
        # Parses, and would refuse an option that there is not.
        parsed = command.make_context(name, list(arguments), parent=context)
        given = {word for word in arguments if word.startswith("--")}
        assert len(given) == sum(
            parsed.get_parameter_source(each.name).name == "COMMANDLINE"
            for each in command.params
            if each.param_type_name == "option"
        )


def test_the_program_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = (PAGE.parents[1] / "packages" / "qr-sampler-lab" / "README.md").read_text("utf-8")
    program = text.split("<!-- run by test_lab_anchors_page.py -->")[1]
    code = program.split("```python\n")[1].split("```")[0]
    (tmp_path / "ledgers").mkdir()
    line = line_of("note", 0, ZERO_HEAD, {})
    (tmp_path / "ledgers" / "run.jsonl").write_bytes(line + b"\n")
    monkeypatch.chdir(tmp_path)
    # Nobody answers there.
    exec(compile(code.replace("https://freetsa.org/tsr", "http://127.0.0.1:1"), "README", "exec"))
    assert "the time stamps: no outside witness for now" in caplog.text
