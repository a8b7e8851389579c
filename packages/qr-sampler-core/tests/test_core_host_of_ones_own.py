# SPDX-License-Identifier: Apache-2.0
"""``docs/engines.md``: its adapter, in 120 lines and by public names only, fulfils the contract."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import qr_sampler
import qr_sampler.host
import qr_sampler.testing
from qr_sampler import Settings
from qr_sampler.testing import EmittedText, HostContract, WitnessSource, check_ledger

PAGE = Path(__file__).resolve().parents[3] / "docs" / "engines.md"
TEXT = PAGE.read_text("utf-8") if PAGE.exists() else ""
MOST_LINES = 120
END = 0

pytestmark = pytest.mark.skipif(not TEXT, reason="the page is not part of an sdist")


def code_of(name: str) -> str:
    """The file called *name* that the page shows."""
    (code,) = re.findall(
        rf"<!-- file: {re.escape(name)};[^>]*-->\n```python\n(.*?)```", TEXT, flags=re.DOTALL
    )
    return str(code)


def module_of(name: str) -> ModuleType:
    """The file called *name*, imported."""
    module = ModuleType(name.removesuffix(".py"))
    sys.modules[module.__name__] = module
    exec(compile(code_of(name), f"{PAGE}:{name}", "exec"), module.__dict__)
    return module


if TEXT:
    host: Any = module_of("my_host.py")
    TestMyHost = module_of("test_my_host.py").TestMyHost


def test_its_ledger_passes_the_checks(tmp_path: Path) -> None:
    source = WitnessSource()
    settings = Settings.load(
        entropy_source_type="witness",
        fallback_mode="error",
        ledger_dir=tmp_path,
        sample_count=64,
    )
    loop = host.BigramHost(host.Bigrams(), settings, {"witness": source})
    options = [{"qr_request_key": f"text {n}", "qr_trial": n} for n in range(20)]
    prompts = [[n % 12, 5] * (1 + n) for n in range(20)]
    texts = loop.generate(prompts, [30 - n for n in range(20)], options, lambda *_: False)
    loop.close()
    assert [len(text) for text in texts] == [30 - n for n in range(20)]
    (file,) = tmp_path.iterdir()
    genesis, *lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    named = (genesis["kind"], genesis["engine"], genesis["model"])
    assert named == ("genesis", "bigrams 1.0", "table-64")
    emitted = [
        EmittedText(request_key=f"text {n}", trial=str(n), tokens=tuple(text))
        for n, text in enumerate(texts)
    ]
    check_ledger(lines, emitted, bytes_drawn=source.bytes_drawn)


@pytest.mark.parametrize("module", [qr_sampler, qr_sampler.host, qr_sampler.testing])
def test_it_needs_public_names_only(module: Any) -> None:
    for name in ("my_host.py", "test_my_host.py"):
        tree = ast.parse(code_of(name))
        imported = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == module.__name__
            for alias in node.names
        ]
        assert set(imported) <= set(module.__all__)
        of_others = [
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) != "self"
        ]
        assert [each for each in of_others if each.startswith("_") and each[-2:] != "__"] == []


def test_it_is_short() -> None:
    lines = code_of("my_host.py").splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 100


def test_the_page_names_every_clause() -> None:
    clauses = {
        name: str(getattr(HostContract, name).__doc__).partition("\n")[0]
        for name in dir(HostContract)
        if name.startswith("test_")
    }
    rows = re.findall(r"^\| `(test_\w+)` \| (.*) \|$", TEXT, flags=re.MULTILINE)
    assert dict(rows) == clauses


def test_the_table_says_what_is_not_applicable() -> None:
    """As the classes that pass the contract declare it."""
    rows = re.findall(r"^\| [^|]+ \| `(packages/[^`]+)` \| .* \|$", TEXT, flags=re.MULTILINE)
    assert len(rows) == 7
    for line in TEXT.splitlines():
        for path in re.findall(r"^\| [^|]+ \| `(packages/[^`]+)` \|", line):
            file = PAGE.parents[1] / path
            code = TEXT if file == Path(__file__) else file.read_text("utf-8")
            declared = set(re.findall(r'"(test_\w+)":', code))
            assert set(re.findall(r"`(test_\w+)`", line)) == declared, path


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", TEXT)
    assert targets
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []
