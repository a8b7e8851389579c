# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler settings``, and the page that it has written: complete, and as the code is."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qr_sampler_cli.commands.settings import MARKS
from qr_sampler_cli.main import app
from qr_sampler_cli.settings.catalogue import CATALOGUE, absent_packages

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "configuration.md"
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py")) if PAGE.exists() else []

in_repository = pytest.mark.skipif(
    not PAGE.exists(), reason="the page is in the repository, not in this archive"
)

NOT_SETTINGS = {
    "QR_DEMO_DIR",  # where `nox -s demo` keeps its model
    "QR_LAB_DIR",  # where `qr-sampler experiment` keeps the register of a laboratory
    "QR_SAMPLER_ENV_FILE",  # passed on between the processes of one engine
    "QR_SAMPLER_RUN_DIRECTORY",  # likewise
    "QR_KEY",  # stands for any variable in a docstring
}


def variables_on(page: str) -> set[str]:
    return set(re.findall(r"^\| `(QR_\w+)` \|", page, flags=re.MULTILINE))


BASES = {"BaseSettings", "EnvironmentSettings", "SourceSettings"}


def models_in_the_code() -> set[tuple[str, str]]:
    """Returns module and name of every class with a prefix of variables, by reading the source."""
    found = set()
    for path in SOURCES:
        module = ".".join(path.relative_to(ROOT / "packages").with_suffix("").parts[2:])
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
            if isinstance(node, ast.ClassDef) and BASES & {*bases}:
                found.add((module, node.name))
    return found - {
        ("qr_sampler.settings.environment", "EnvironmentSettings"),
        ("qr_entropy_sources.settings", "SourceSettings"),
    }


@in_repository
def test_every_model_of_settings_is_in_the_catalogue() -> None:
    known = {(entry.module, entry.model) for entry in CATALOGUE}
    assert len(known) == len(CATALOGUE)
    assert models_in_the_code() == known


@in_repository
def test_the_readme_has_all_tables_folded(tmp_path: Path) -> None:
    if absent := absent_packages():
        pytest.skip(f"{', '.join(absent)} not installed, so the tables cannot be made whole")
    readme, copy = ROOT / "README.md", tmp_path / "README.md"
    text = readme.read_text("utf-8")
    copy.write_text(re.sub(f"(?s)(?<={MARKS[0]}).*(?={MARKS[1]})", "\n", text), "utf-8")
    result = CliRunner().invoke(app, ["settings", "--into", str(copy)])
    assert result.exit_code == 0, result.output
    assert copy.read_text("utf-8") == text, (
        "stale: uv run qr-sampler settings --output docs/configuration.md --into README.md"
    )
    folded = text.split("<details>")[-1].split("</details>")[0]
    assert variables_on(folded) == variables_on(PAGE.read_text("utf-8"))


@pytest.mark.parametrize("text", ["", f"{MARKS[0]}", f"{MARKS[1]}\n{MARKS[0]}"])
def test_a_page_without_the_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    result = CliRunner().invoke(app, ["settings", "--into", str(page)])
    assert result.exit_code == 2
    assert "it has no part from" in result.stderr
    assert page.read_text() == text


@in_repository
def test_page_is_what_the_command_writes(tmp_path: Path) -> None:
    if absent := absent_packages():
        pytest.skip(f"{', '.join(absent)} not installed, so the page cannot be made whole")
    written = tmp_path / "page.md"
    result = CliRunner().invoke(app, ["settings", "--output", str(written)])
    assert result.exit_code == 0, result.output
    assert result.output == ""
    fresh = written.read_text("utf-8")
    assert PAGE.read_text("utf-8") == fresh, (
        "stale; run: uv run qr-sampler settings --output docs/configuration.md"
    )


@in_repository
def test_every_variable_that_the_code_names_is_on_the_page() -> None:
    known = variables_on(PAGE.read_text("utf-8"))
    assert len(known) > 80
    text = "\n".join(path.read_text("utf-8") for path in SOURCES)
    named = set(re.findall(r"\bQR_[A-Z0-9_]*[A-Z0-9]\b(?!_)", text))
    assert named - known - NOT_SETTINGS == set()
    assert named >= NOT_SETTINGS


def test_the_command_prints_what_is_installed() -> None:
    result = CliRunner().invoke(app, ["settings"])
    assert result.exit_code == 0
    assert {"QR_TOP_K", "QR_DEVICE_FILE_PATH"} <= variables_on(result.stdout)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not even those are installed wherever these tests run.
    absent = {entry.module.partition(".")[0] for entry in CATALOGUE}
    absent -= {"qr_sampler", "qr_entropy_sources"}
    monkeypatch.setattr(
        "qr_sampler_cli.settings.catalogue.find_spec",
        lambda name: None if name in absent else object(),
    )
    result = CliRunner().invoke(app, ["settings"])
    assert result.exit_code == 0
    assert result.stderr == f"not installed, so not shown: {', '.join(absent_packages())}\n"
    assert {"qr-entropy-serial", "qr-sampler-grpc", "qr-sampler-lab"} <= set(absent_packages())
    assert not any(name.startswith("QR_GRPC_") for name in variables_on(result.stdout))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a folder that is no file")
def test_file_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["settings", "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert f"cannot write {tmp_path}: it is not a regular file" in result.stderr
