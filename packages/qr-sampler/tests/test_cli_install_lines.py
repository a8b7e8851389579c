# SPDX-License-Identifier: Apache-2.0
"""Commands of the pages and images that install our packages name every sibling that is needed.

The packages are on no index: what a command leaves out, pip would take from a stranger there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib", reason="is in the standard library since Python 3.11")

ROOT = Path(__file__).parents[3]
PACKAGES = ROOT / "packages"

NAMED = re.compile(
    r"(?:\./packages/|/wheels/)(qr[\w-]*?)(?:-\*\.whl\)?)?(?:\[([\w,-]+)\])?(?=[\"'\s)`]|$)"
)


def pages() -> Iterator[Path]:
    yield ROOT / "README.md"
    for folder in ("deployments", "docs", "packages", ".github"):
        for pattern in ("*.md", "Dockerfile*"):
            yield from (ROOT / folder).rglob(pattern)


def commands() -> Iterator[tuple[str, str]]:
    """Yields where a command is, and the command."""
    for page in pages():
        text = page.read_text("utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            if re.search(r"pip install|set -- ", line) and "--no-deps ./" not in line:
                yield str(page.relative_to(ROOT)), line


def project(name: str) -> dict[str, Any]:
    text = (PACKAGES / name / "pyproject.toml").read_text("utf-8")
    found: dict[str, Any] = tomllib.loads(text)["project"]
    return found


def siblings(name: str, extras: set[str]) -> set[str]:
    """Returns the packages of ours that a package needs, itself included."""
    of = project(name)
    lines = [*of["dependencies"]]
    for extra in extras:
        lines += of["optional-dependencies"][extra]
    needed = {name}
    for requirement in map(Requirement, lines):
        if (PACKAGES / requirement.name).is_dir():
            if requirement.name != name:
                needed |= siblings(requirement.name, set(requirement.extras))
            else:
                needed |= siblings(name, set(requirement.extras))
    return needed


def absent(command: str) -> set[str]:
    """Returns the siblings that a command lacks."""
    named = {
        name.replace("_", "-"): set(filter(None, extras.split(",")))
        for name, extras in NAMED.findall(command)
    }
    if "./packages/*" in command:
        return set()
    needed: set[str] = set()
    for name, extras in named.items():
        needed |= siblings(name, extras)
    return needed - set(named)


def test_commands_name_the_siblings_that_are_needed() -> None:
    found = [(page, line) for page, line in commands() if NAMED.search(line)]
    assert len(found) > 15
    assert {page for page, _ in found} >= {
        "README.md",
        "docs/transformers.md",
        "deployments/docker/Dockerfile.vllm",
        "deployments/docker/Dockerfile.entropy-server",
    }
    lacking = {page: absent(line) for page, line in found if absent(line)}
    assert lacking == {}


def test_a_command_that_lacks_one_is_found() -> None:
    line = "pip install './packages/qr-sampler-local[transformers]' ./packages/qr-sampler-core"
    assert absent(line) == {"qr-entropy-sources", "qr-sampler-accel"}
    wheels = '"$(echo /wheels/qr_sampler_grpc-*.whl)[signing]" /wheels/qr_entropy_sources-*.whl'
    assert absent(wheels) == {"qr-sampler-core"}
