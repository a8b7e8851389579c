# SPDX-License-Identifier: Apache-2.0
"""Commands of other packages: installed for real, broken ones too, and harmless to the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = '''
import typer

group = typer.Typer(help="Two commands of a stranger.")


@group.command()
def first() -> None:
    """The first."""
    print("first ran")


@group.command()
def second() -> None:
    """The second."""


def alone(word: str, times: int = 1) -> None:
    """A single command of a stranger."""
    print(word * times)


def sources() -> None:
    """A command under a name that is taken."""
    raise SystemExit(77)


number = 7

empty = typer.Typer()


def untyped(what: int | dict) -> None:
    """A command with an argument of a type that no command line has."""
'''

ENTRY_POINTS = """[qr_sampler.commands]
stranger = stranger:group
repeat = stranger:alone
sources = stranger:sources
number = stranger:number
broken = stranger_that_is_not_there:app
empty = stranger:empty
untyped = stranger:untyped
leaving = stranger_that_leaves:app
"""


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """Returns a folder with a distribution that brings commands."""
    metadata = tmp_path / "stranger-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "stranger.py").write_text(MODULE)
    (tmp_path / "stranger_that_leaves.py").write_text("raise SystemExit(0)")
    return tmp_path


def run(folder: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder or ""), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "qr_sampler_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_commands_of_others_stand_in_the_help(strangers: Path) -> None:
    result = run(strangers, "--help")
    assert result.returncode == 0, result.stderr
    for words in ("Two commands of a stranger", "A single command", "doctor"):
        assert words in result.stdout
    lines = [line for line in result.stdout.splitlines() if "Unavailable" in line]
    names = {name for line in lines for name in line.split()}
    assert {"broken", "empty", "leaving", "number", "untyped"} <= names


def test_commands_of_others_run(strangers: Path) -> None:
    assert run(strangers, "stranger", "first").stdout == "first ran\n"
    assert run(strangers, "repeat", "ab", "--times", "2").stdout == "abab\n"
    assert run(strangers, "repeat", "-h").returncode == 0


def test_names_of_our_own_are_ours(strangers: Path) -> None:
    assert run(strangers, "sources").returncode == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [("broken", "stranger_that_is_not_there"), ("number", "no command but int")],
)
def test_command_that_cannot_be_loaded_says_why(strangers: Path, name: str, reason: str) -> None:
    result = run(strangers, name, "--any", "thing")
    assert result.returncode == 2
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_command_of_an_absent_laboratory_names_its_package() -> None:
    program = """
import importlib.metadata as metadata
import sys
import qr_sampler_cli.plugged_commands as plugged
plugged.entry_points = lambda **_: metadata.EntryPoints()
from qr_sampler_cli.main import app
app(["analyze", "ledger.jsonl", "--by", "condition"])
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "pip install ./packages/qr-sampler-lab" in result.stderr


def test_unknown_commands_stay_unknown() -> None:
    result = run(None, "no-such-command")
    assert result.returncode == 2
    assert "No such command" in result.stderr
