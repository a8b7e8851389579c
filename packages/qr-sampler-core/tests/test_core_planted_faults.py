# SPDX-License-Identifier: Apache-2.0
"""Every fault that is planted is caught by the clause that is named for it, and by no other."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from qr_sampler.testing import (
    AmplifierContract,
    EntropySourceContract,
    HostContract,
    TemperatureStrategyContract,
)

PLANTED: Final = Path(__file__).parent / "planted"
MODULES: Final = ("faulty_sources", "faulty_components", "faulty_hosts")
CONTRACTS: Final = (
    EntropySourceContract,
    AmplifierContract,
    TemperatureStrategyContract,
    HostContract,
)

NOT_PLANTED: Final = {"test_draw_of_nothing"}
"""Whatever breaks it breaks much else."""


def planted(name: str) -> ModuleType:
    """Returns a module of faulty components, as pytest will collect it in a process of its own."""
    spec = importlib.util.spec_from_file_location(name, PLANTED / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expectations() -> dict[str, str]:
    """Returns, by the class that checks it, which clause has to notice a fault; none for a few."""
    return {
        name: checks.caught_by
        for module in map(planted, MODULES)
        for name, checks in vars(module).items()
        if isinstance(checks, type) and name.startswith("Test") and hasattr(checks, "caught_by")
    }


EXPECTED: Final = expectations()


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The names of the clauses that failed, by class, of one run of all."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "pytest.ini").write_text("[pytest]\npython_files = *.py\n", "utf-8")
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(folder / "pytest.ini")]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", f"--junitxml={report}"]
    command += [str(PLANTED / f"{name}.py") for name in MODULES]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, set[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        clauses = found.setdefault(case.attrib["classname"].rpartition(".")[2], set())
        if case.find("failure") is not None or case.find("error") is not None:
            clauses.add(case.attrib["name"].partition("[")[0])
    return found


@pytest.mark.heavy
@pytest.mark.parametrize("name", EXPECTED)
def test_a_fault_is_caught_by_its_name_only(name: str, failures: dict[str, set[str]]) -> None:
    assert failures[name] == ({EXPECTED[name]} if EXPECTED[name] else set())


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_clause_has_a_fault_that_it_catches(contract: Any) -> None:
    clauses = {name for name in dir(contract) if name.startswith("test_")}
    assert clauses - set(EXPECTED.values()) - NOT_PLANTED == set()


def test_no_two_faults_have_the_same_name() -> None:
    """The report of a run tells them apart by nothing else."""
    names = [
        name for module in map(planted, MODULES) for name in vars(module) if name.startswith("Test")
    ]
    assert len(names) == len(set(names))
