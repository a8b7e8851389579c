# SPDX-License-Identifier: Apache-2.0
"""The page of names: what it says is here, is here."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from qr_sampler_cli.main import app

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "names.md"
NAME = r"qr_\w+(\.\w+)+"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository only")


def cells() -> list[tuple[str, str]]:
    """Returns the two cells of every row that is no heading."""
    rows = re.findall(r"^\| (.*) \| (.*) \|$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    return [row for row in rows if row != ("there", "here")]


def named_here() -> list[str]:
    return [word for _, here in cells() for word in re.findall(r"`([^`]+)`", here)]


def look_up(name: str) -> Any:
    """Returns the object of a dotted name, whatever of it is modules."""
    *parents, last = name.split(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
    return getattr(look_up(".".join(parents)), last)


def test_every_name_exists() -> None:
    names = [name for name in named_here() if re.fullmatch(NAME, name)]
    assert len(names) > 30
    for name in names:
        if find_spec(name.partition(".")[0]) is not None:
            assert look_up(name) is not None


def test_every_path_exists() -> None:
    paths = [
        name
        for name in named_here()
        if ("/" in name or name == "servers") and " " not in name and not re.fullmatch(NAME, name)
    ]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_variable_and_command_exists() -> None:
    known = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    variables = [name for name in named_here() if re.fullmatch(r"QR_[A-Z_]+", name)]
    assert variables
    assert [name for name in variables if f"`{name}`" not in known] == []
    commands = [name.split()[1:] for name in named_here() if name.startswith("qr-sampler ")]
    assert commands
    for words in commands:
        found: Any = get_command(app)
        for word in words:
            found = found.commands[word]
