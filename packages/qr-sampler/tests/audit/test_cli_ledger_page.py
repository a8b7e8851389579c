# SPDX-License-Identifier: Apache-2.0
"""The page about the ledger: its schema is current, its programs agree with the audit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qr_sampler_cli.audit.schema.lines import KINDS, json_schema

DOCS = Path(__file__).resolve().parents[4] / "docs"
PAGE = DOCS / "ledger.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository only")


def program(language: str) -> str:
    """Returns the first program of the page in a language, which checks a chain."""
    text, *_ = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    return str(text)


def has_perl() -> bool:
    perl = shutil.which("perl")
    if perl is None:
        return False
    modules = [perl, "-MDigest::SHA", "-MJSON::PP", "-e", "1"]
    return subprocess.run(modules, capture_output=True, timeout=60).returncode == 0


@pytest.fixture(scope="module", params=["python", "perl"])
def checker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Returns the command that checks a chain, in each language."""
    script = tmp_path_factory.mktemp("checker") / "check"
    script.write_text(program(request.param))
    if request.param == "python":
        return [sys.executable, "-I", str(script)]
    if not has_perl():
        pytest.skip("this machine has no Perl with Digest::SHA and JSON::PP")
    return ["perl", str(script)]


def checked(checker: list[str], path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*checker, str(path)], capture_output=True, text=True, timeout=60)


def test_the_schema_is_current() -> None:
    assert (DOCS / "ledger.schema.json").read_text("utf-8") == json_schema()


def test_lines_fit_the_schema(run: Any, chain: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(json_schema()))
    for line in chain(run().of_every_kind()):
        fields = json.loads(line)
        assert validator.is_valid(fields) == (fields["kind"] in KINDS)
    validator.check_schema(validator.schema)


def test_every_kind_and_field_is_explained() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE.read_text("utf-8")))
    for name, definition in json.loads(json_schema())["$defs"].items():
        fields = set(definition.get("properties", {})) - {"n", "prev", "kind"}
        tag = definition["properties"].get("kind", {}).get("enum", [])
        assert set(tag) <= told, name
        assert fields <= told | {"file", "lines"}, name


def test_the_python_program_is_short() -> None:
    lines = [line for line in program("python").splitlines() if line.strip()]
    assert len(lines) <= 15
    assert set(re.findall(r"import (.*)", program("python"))) == {"hashlib, json, sys"}


@pytest.mark.parametrize("seed", range(3))
def test_programs_find_the_head(
    checker: list[str], run: Any, save: Any, audited_head: Any, seed: int
) -> None:
    for lines in (run(seed).whole(), run(seed).of_every_kind()):
        path = save(lines)
        result = checked(checker, path)
        assert result.stderr == ""
        assert result.stdout == f"{len(lines)} lines, head {audited_head(path)}\n"


def test_programs_skip_torn_lines(checker: list[str], run: Any, chain: Any, save: Any) -> None:
    torn = b'{"kind":"token","n":2,"pre'
    made = run(1)
    made.gap({}, torn_bytes=len(torn))
    lines = chain(made.whole())
    result = checked(checker, save([*lines[:2], torn, *lines[2:]]))
    assert result.stdout.startswith(f"{len(lines)} lines, head ")
    assert checked(checker, save([*lines[:2], torn + b"x", *lines[2:]])).returncode != 0
    assert checked(checker, save([*lines[:4], torn, *lines[4:]])).returncode != 0


TAMPERING = {
    "edit": lambda lines: [*lines[:5], lines[5].replace(b"5", b"6", 1), *lines[6:]],
    "deletion": lambda lines: [*lines[:5], *lines[6:]],
    "first line": lambda lines: lines[1:],
    "insertion": lambda lines: [*lines[:5], lines[3], *lines[5:]],
    "swap": lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]],
    "no JSON": lambda lines: [*lines[:5], b"{", *lines[6:]],
    "seal": lambda lines: [lines[0].replace(b'"seal":null', b'"seal":"' + b"1" * 64 + b'"')],
}


@pytest.mark.parametrize("name", TAMPERING)
def test_programs_expose_what_was_done(
    checker: list[str], run: Any, chain: Any, save: Any, audit: Any, name: str
) -> None:
    path = save(TAMPERING[name](chain(run(2).whole())))
    result = checked(checker, path)
    assert result.returncode != 0
    assert re.search(r"line \d+ does not follow the line before it", result.stderr)
    assert audit(path)[1].status == "fails"
