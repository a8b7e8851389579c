# SPDX-License-Identifier: Apache-2.0
"""The README, executed and compared with the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from qr_entropy_cryptalabs.settings import CryptaLabsSettings
from qr_entropy_cryptalabs.source import CryptaLabsSource
from qr_sampler import create_source
from qr_sampler.settings_reference import settings_table

README = Path(__file__).resolve().parents[1] / "README.md"
TERM = r'\s*[A-Z_]+(?:\{\w+\})?(==|\+=|=)"[^"]+"'
"""A key, an operator and a quoted value, as udev(7) has them."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def test_table_of_settings_is_the_code() -> None:
    text = README.read_text("utf-8")
    found = text.split("<!-- settings -->\n")[1].split("\n<!-- /settings -->")[0]
    assert found == settings_table(CryptaLabsSettings)


def test_the_example_runs() -> None:
    (example,) = blocks("python")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(example, str(README), "exec"), {})


def test_the_commands_serve_a_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, simulator, exports = (block.replace("/tmp", str(tmp_path)) for block in blocks("bash"))
    command = shlex.split(simulator)
    assert command[0] == "python"
    program = subprocess.Popen(
        [sys.executable, *command[1:]], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline().endswith("is ready\n")
    for name, value in re.findall(r"export (\w+)=(\S+)", exports):
        monkeypatch.setenv(name, value)
    source = create_source("cryptalabs")
    assert isinstance(source, CryptaLabsSource)
    assert source.draw(64).signature_verified
    source.close()
    program.terminate()
    program.communicate(timeout=30)


def test_rules_for_udev_are_well_formed() -> None:
    """Every one matches something and assigns something."""
    (block,) = blocks("udev")
    for rule in block.strip().splitlines():
        terms = [re.fullmatch(TERM, term) for term in rule.split(",")]
        assert all(terms), rule
        assert {term[1] == "==" for term in terms if term} == {True, False}
