# SPDX-License-Identifier: Apache-2.0
"""The hosted workflow, the nox sessions and the metadata of the packages agree."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML reads the workflow")

ROOT = Path(__file__).resolve().parents[3]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"

pytestmark = [
    pytest.mark.skipif(not WORKFLOW.exists(), reason="the workflow is in the repository only"),
    pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is in Python since 3.11"),
]


def constants() -> dict[str, Any]:
    """Returns the constants of the noxfile that are written out."""
    found = {}
    for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            try:
                found[node.target.id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def project(path: Path) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(path.read_text("utf-8"))


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]
    return found


def uploaded(job: dict[str, Any]) -> set[str]:
    (step,) = (step for step in job["steps"] if "codecov" in step.get("uses", ""))
    return set(step["with"]["files"].replace(" ", "").split(","))


def test_pythons_are_those_of_the_sessions_and_of_the_metadata() -> None:
    pythons = list(constants()["PYTHONS"])
    assert jobs()["tests"]["strategy"]["matrix"]["python"] == pythons
    assert jobs()["floors"]["strategy"]["matrix"]["python"] == [pythons[0], *pythons[-2:]]
    for path in ROOT.glob("packages/*/pyproject.toml"):
        classifiers = "\n".join(project(path)["project"]["classifiers"])
        assert re.findall(r":: (3\.\d+)$", classifiers, flags=re.MULTILINE) == pythons


def test_the_coverage_of_every_package_is_uploaded_once() -> None:
    packages, engine = constants()["PACKAGES"], constants()["NEEDS_ENGINE"]
    files = {name: f".nox/coverage/{name}.xml" for name in packages}
    assert uploaded(jobs()["tests"]) == {files[name] for name in packages if name not in engine}
    assert uploaded(jobs()["vllm"]) == {files[name] for name in engine}
    (step,) = (step for step in jobs()["tests"]["steps"] if "codecov" in step.get("uses", ""))
    assert step["if"] == f"matrix.python == '{constants()['COVERAGE_PYTHON']}'"


def test_packages_are_tested_on_the_systems_that_they_claim() -> None:
    matrix = jobs()["systems"]["strategy"]["matrix"]
    assert matrix["system"] == ["macos-latest", "windows-latest"]
    assert matrix["package"] == list(constants()["PACKAGES"])
    without_windows = set()
    for path in ROOT.glob("packages/*/pyproject.toml"):
        (system,) = re.findall(r'"Operating System :: (.*)"', path.read_text("utf-8"))
        assert system in ("OS Independent", "POSIX")
        if system == "POSIX":
            without_windows.add(path.parent.name)
    excluded = matrix["exclude"]
    assert {entry["system"] for entry in excluded} == {"windows-latest"}
    assert {entry["package"] for entry in excluded} == without_windows
    assert set(jobs()) - {"all-green"} == set(jobs()["all-green"]["needs"])


def flattened(groups: dict[str, list[Any]], name: str) -> set[str]:
    found: set[str] = set()
    for entry in groups[name]:
        nested = entry["include-group"] if isinstance(entry, dict) else None
        found |= flattened(groups, nested) if nested else {entry}
    return found


def test_the_extra_for_development_is_a_part_of_the_group() -> None:
    extras = project(ROOT / "packages/qr-sampler/pyproject.toml")["project"]
    groups = project(ROOT / "pyproject.toml")["dependency-groups"]
    dev = set(extras["optional-dependencies"]["dev"])
    assert dev <= flattened(groups, "dev")
    names = {re.split(r"[>=<;! ]", requirement)[0] for requirement in dev}
    assert names >= {"pytest", "scipy", "ruff", "mypy", "pre-commit"}
    assert extras["optional-dependencies"]["docs"]
