# SPDX-License-Identifier: Apache-2.0
"""The layout of all packages: small folders, and nobody imports the private names of another."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

PACKAGES: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = sorted(PACKAGES.glob("*/src/**/*.py"))

pytestmark = pytest.mark.skipif(
    not (PACKAGES / "qr-sampler-vllm").is_dir(),
    reason="the other packages are in the repository, not in this archive",
)

MOST_MODULES: Final = 14
"""Modules of a folder that a reader can take in at once; ``__init__.py`` is not counted."""


def is_private(name: str) -> bool:
    """Whether a name, or a part of a dotted one, begins with a single underscore."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def imported_names(tree: ast.Module) -> list[tuple[str, str]]:
    """Returns every imported module with the name that is imported from it, empty for a module."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [(node.module or "", alias.name) for alias in node.names]
    return names


def private_imports(source: str, owner: str) -> list[str]:
    """Returns the private names of other packages that a module of the package *owner* imports."""
    ours = {path.parent.name for path in PACKAGES.glob("*/src/*/__init__.py")}
    return [
        f"{module}.{name}".rstrip(".")
        for module, name in imported_names(ast.parse(source))
        if module.partition(".")[0] in ours - {owner} and (is_private(module) or is_private(name))
    ]


def test_folders_are_small() -> None:
    modules = Counter(path.parent for path in SOURCES if path.name != "__init__.py")
    assert len(modules) > 30
    crowded = {
        str(folder.relative_to(PACKAGES)): count
        for folder, count in modules.items()
        if count > MOST_MODULES
    }
    assert crowded == {}


def test_folders_say_what_they_hold() -> None:
    folders = {path.parent for path in SOURCES}
    silent = [
        str(folder.relative_to(PACKAGES))
        for folder in folders
        if not ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8")))
    ]
    assert silent == []


def test_no_package_imports_what_is_private_to_another() -> None:
    found = {}
    for path in SOURCES:
        owner = path.relative_to(PACKAGES).parts[2]
        if names := private_imports(path.read_text("utf-8"), owner):
            found[str(path.relative_to(PACKAGES))] = names
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "import qr_sampler._typing",
        "from qr_sampler._typing import FloatArray",
        "from qr_sampler.selection import _masses",
    ],
)
def test_private_imports_are_noticed(line: str) -> None:
    assert private_imports(line, "qr_sampler_vllm") != []
    assert private_imports(line, "qr_sampler") == []
