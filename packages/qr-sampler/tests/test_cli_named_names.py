# SPDX-License-Identifier: Apache-2.0
"""What the pages for contributors and plugin authors name is importable from where they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

from qr_sampler.settings import EnvironmentSettings, Settings
from qr_sampler_cli.settings.plugged import REGISTRIES

ROOT: Final = Path(__file__).resolve().parents[3]
PAGES: Final = (ROOT / ".github" / "CONTRIBUTING.md", ROOT / "docs" / "plugins.md")

pytestmark = pytest.mark.skipif(
    not PAGES[0].exists(), reason="the pages are in the repository, not in this archive"
)

OURS: Final = r"(?:qr_sampler|qr_entropy_sources)"


def named(text: str) -> Iterator[tuple[str, str]]:
    """Yields every module with a name that *text* takes from it, dotted or imported."""
    for line in re.findall(rf"`({OURS}(?:\.\w+)+)`", text):
        yield line.rpartition(".")[0], line.rpartition(".")[2]
    for module, names in re.findall(rf"^\s*from ({OURS}[\w.]*) import ([\w, ]+)$", text, re.M):
        for name in names.split(","):
            yield module, name.strip()
    for name in re.findall(r"`(\w+Contract)`", text):
        yield "qr_sampler.testing", name


def is_there(module: str, name: str) -> bool:
    """Whether *name* can be imported from *module*, or is a module in it, or a group."""
    if f"{module}.{name}" in {registry.group for registry in REGISTRIES.values()}:
        return True
    if hasattr(import_module(module), name):
        return True
    try:
        import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_importable_from_where_it_says(page: Path) -> None:
    names = set(named(page.read_text("utf-8")))
    assert [name for name in sorted(names) if not is_there(*name)] == []


def test_both_pages_name_something() -> None:
    names = {name for page in PAGES for name in named(page.read_text("utf-8"))}
    assert ("qr_sampler.testing", "EntropySourceContract") in names
    assert ("qr_sampler.testing", "StampedWriter") in names
    assert len(names) >= 8
    assert not is_there("qr_sampler.testing", "Nonsense")
    assert issubclass(Settings, EnvironmentSettings)
