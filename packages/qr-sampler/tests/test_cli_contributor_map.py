# SPDX-License-Identifier: Apache-2.0
"""The pages for contributors: their paths, packages, sessions and commands exist as they say."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from qr_sampler_cli.main import app
from qr_sampler_cli.plugged_commands import OF_THE_LABORATORY

ROOT = Path(__file__).resolve().parents[3]
MAP = ROOT / ".claude" / "CLAUDE.md"
GUIDE = ROOT / ".github" / "CONTRIBUTING.md"

pytestmark = pytest.mark.skipif(
    not MAP.exists(), reason="the map is in the repository, not in this archive"
)

TOP_LEVEL = {
    "packages/",
    "servers/",
    "deployments/",
    "docs/",
    "noxfile.py",
    "pyproject.toml",
    "uv.lock",
    "LICENSE",
    "README.md",
}
FOLDERS = ("packages/", "servers/", "deployments/", "docs/", ".github/", ".ci/")
TOOLS = ("pytest", "ruff", "mypy", "nox", "qr-sampler")


def commands(page: Path = MAP) -> list[list[str]]:
    """Returns the words of each command of a page, without the comment behind it."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def decorators(name: str) -> str:
    """Returns the decorators of a function of the noxfile as text."""
    (function,) = (
        node
        for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return " ".join(map(ast.unparse, function.decorator_list))


def sessions() -> dict[str, bool]:
    """Returns the sessions of the noxfile, and whether each is run for every package."""
    found = {}
    for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body:
        decorators = [ast.unparse(item) for item in getattr(node, "decorator_list", [])]
        if any(text.startswith("nox.session") for text in decorators):
            assert isinstance(node, ast.FunctionDef)
            found[node.name] = any(text.startswith("nox.parametrize") for text in decorators)
    return found


def packages() -> dict[str, str]:
    """Returns the import name of each package."""
    return {
        path.name: init.parent.name
        for path in (ROOT / "packages").iterdir()
        for init in path.glob("src/*/__init__.py")
    }


def test_paths_exist() -> None:
    text = MAP.read_text("utf-8")
    named = [name for name in re.findall(r"`([^`\s]+)`", text) if name.startswith(FOLDERS)]
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []
    linked = re.findall(r"\]\(([^)]+)\)", text)
    assert linked
    assert [name for name in linked if not (MAP.parent / name).exists()] == []


def test_top_level_is_what_it_says() -> None:
    (line,) = (text for text in MAP.read_text("utf-8").splitlines() if "top level" in text)
    assert set(re.findall(r"`([^`]+)`", line)) == TOP_LEVEL
    assert [name for name in TOP_LEVEL if not (ROOT / name).exists()] == []


def test_table_of_packages_is_complete() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `(\w+)` \|", MAP.read_text("utf-8"), re.MULTILINE)
    assert dict(rows) == packages()


def test_errors_and_words_exist_in_the_code() -> None:
    errors = set(re.findall(r"`(\w+Error)`", MAP.read_text("utf-8")))
    defined = (ROOT / "packages/qr-sampler-core/src/qr_sampler/errors.py").read_text("utf-8")
    assert errors
    assert [name for name in errors if f"class {name}(" not in defined] == []


def test_commands_use_the_tools_of_the_workspace_on_files_that_exist() -> None:
    assert ["uv", "sync"] in commands()
    used = [words[2:] for words in commands() if words[:2] == ["uv", "run"]]
    assert len(used) == len(commands()) - 1
    for tool, *arguments in used:
        assert tool in TOOLS
        paths = [name for name in arguments if name.startswith(FOLDERS)]
        assert [name for name in paths if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(("page", "least"), [(MAP, 6), (GUIDE, 6)])
def test_sessions_exist(page: Path, least: int) -> None:
    known = sessions()
    named = 0
    for words in commands(page):
        if words[2:4] != ["nox", "-s"]:
            continue
        for session in " ".join(words[4:]).split(" -- ")[0].split():
            found = re.fullmatch(r"(\w+)(?:-([\d.]+)\((.+)\))?", session)
            assert found is not None, session
            name, python, package = found.groups()
            assert name in known, session
            assert (python is not None) == known[name], session
            assert package is None or package in packages(), session
            named += 1
    assert named >= least


def test_the_guide_says_when_to_run_what() -> None:
    rows = re.findall(
        r"^\| [^|`]+ \| `uv run nox([^`]*)` \|", GUIDE.read_text("utf-8"), re.MULTILINE
    )
    assert rows == [" -s quick", "", " -s campaigns"]
    for name in ("quick", "campaigns"):
        assert "nox.session(" in decorators(name)
        assert "default=False" in decorators(name), "`uv run nox` is said to leave it out"
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    (left_out,) = re.findall(r'"(not slow[^"]*)"', noxfile)
    assert left_out == "not slow and not heavy"


def test_subcommands_exist() -> None:
    known = get_command(app).commands
    used = [words[3:] for words in commands() if words[2:3] == ["qr-sampler"]]
    assert used
    for name, *arguments in used:
        if name in OF_THE_LABORATORY:
            continue  # Its own tests run it; here it may not be installed.
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("-")} <= options
