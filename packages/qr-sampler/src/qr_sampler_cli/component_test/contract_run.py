# SPDX-License-Identifier: Apache-2.0
"""Runs the contract of a component with pytest, and tells how each clause ended."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from qr_sampler_cli.component_test.subject import Subject

__all__ = ["run_contract"]

SUBJECTS: Final = Path(__file__).with_name("subjects.py")
CLASSES: Final = {"source": "TestSource", "amplifier": "TestAmplifier", "strategy": "TestStrategy"}

FORK_CLAUSE: Final = "test_a_fork_gets_bytes_of_its_own"
LONGEST_WORDS: Final = 500

WHOLE: Final = {
    pytest.ExitCode.OK,
    pytest.ExitCode.TESTS_FAILED,
    # Only sources have a clause about forks.
    pytest.ExitCode.NO_TESTS_COLLECTED,
}
"""How pytest ends when it has run all clauses."""


class _Reporter:
    """A plugin of pytest that provides the subject and passes on the results."""

    def __init__(self, subject: Subject, tell: Callable[[dict[str, Any]], None]) -> None:
        self._subject = subject
        self._tell = tell

    @pytest.fixture
    def subject(self) -> Subject:
        """What is tested."""
        return self._subject

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tells what begins: should it never end, it is known what did not."""
        self._tell({"begins": _clause(nodeid)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tells how a clause ended, which its preparation may have done already."""
        if report.when == "call" or report.outcome != "passed":
            told = {"clause": _clause(report.nodeid), "outcome": report.outcome}
            self._tell({**told, "words": _words(report)})


def run_contract(subject: Subject, tell: Callable[[dict[str, Any]], None]) -> None:
    """Runs all clauses, those about forks first: a library may not survive a fork once it is used.

    Args:
        subject: The component.
        tell: Called with what begins and with what has ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "pytest.ini")
        empty.write_text("[pytest]\n", "utf-8")
        common = ["-q", "-c", str(empty), "--noconftest", "-p", "no:cacheprovider"]
        target = f"{SUBJECTS}::{CLASSES[subject.kind]}"
        told_of_forks: list[dict[str, Any]] = []
        failed: set[str] = set()

        def tell_of_forks(told: dict[str, Any]) -> None:
            (tell if "begins" in told else told_of_forks.append)(told)

        def tell_of_others(told: dict[str, Any]) -> None:
            if told.get("outcome") == "failed":
                failed.add(told["clause"].partition("[")[0])
            tell(told)

        runs = {FORK_CLAUSE: tell_of_forks, f"not {FORK_CLAUSE}": tell_of_others}
        for choice, teller in runs.items():
            status = pytest.main(
                [*common, "-k", choice, target], plugins=[_Reporter(subject, teller)]
            )
            if status not in WHOLE:
                tell({"raised": f"pytest was ended with status {int(status)}"})
    for told in told_of_forks:
        tell(_unless_presupposed(told, failed))


def _unless_presupposed(told: dict[str, Any], failed: set[str]) -> dict[str, Any]:
    """Returns what was told of forks, which is nothing new where something else has failed."""
    from qr_sampler.testing import EntropySourceContract

    presupposed: tuple[str, ...] = getattr(EntropySourceContract, FORK_CLAUSE).presupposed
    for name in presupposed:
        if name in failed:
            words = f"says nothing new, because {name} failed"
            return {**told, "outcome": "skipped", "words": words}
    return told


def _clause(nodeid: str) -> str:
    return nodeid.rpartition("::")[2]


def _words(report: pytest.TestReport) -> str:
    """Returns why a clause failed or was skipped, in bounded length; nothing if it passed."""
    told: Any = report.longrepr
    if report.outcome == "skipped" and isinstance(told, tuple):
        words = str(told[2]).removeprefix("Skipped: ")
    else:
        crash = getattr(told, "reprcrash", None)
        words = str(told or "") if crash is None else crash.message
    return words.strip()[:LONGEST_WORDS]
