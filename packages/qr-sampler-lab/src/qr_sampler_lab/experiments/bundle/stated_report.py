# SPDX-License-Identifier: Apache-2.0
"""Compares the report in a bundle with what its ledgers and its journal give."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.environment import installed_code
from qr_sampler_lab.experiments.files.errors import RecordError
from qr_sampler_lab.experiments.protocol.arm_sources import with_kinds
from qr_sampler_lab.experiments.protocol.files import read_bounded
from qr_sampler_lab.experiments.results.report import facts_of, figures_of
from qr_sampler_lab.experiments.results.report_text import report_text
from qr_sampler_lab.experiments.results.revealed import Revealed
from qr_sampler_lab.experiments.study import Study

__all__ = ["check_report"]

_LARGEST_REPORT: Final = 2**26

_DEEPEST: Final = 32
"""Most levels of lists and mappings; a report has six."""

_CALCULATES: Final = ("qr-sampler-core", "qr-sampler", "qr-sampler-lab")
"""The distributions that figures are computed with."""

_RELATIVE: Final = 1e-6
"""Relative difference of two numbers that may come of another order of additions."""

_ABSOLUTE: Final = 1e-12
"""The same of numbers that may be 0 but for that; probabilities are never so near to it."""


def check_report(checks: Checks, study: Study, revealed: Revealed) -> None:
    """Compares every figure, statement and page of a report with what is computed here.

    Args:
        checks: Takes the findings.
        study: The payload of the bundle.
        revealed: What the secrets of the study say.
    """
    path = study.report / "report.json"
    if not path.is_file():
        checks.cannot_say("figures", "whether a report is right: there is none")
        return
    report = _json(path)
    for stamp in report.get("stamps") or ():
        checks.cannot_say("figures", f"what sealed code would say: the report says {stamp}")
    facts = json.loads(json.dumps(facts_of(study, revealed)))
    for key in sorted((report.keys() | facts.keys()) - {"stamps", "figures"}):
        checks.compare("figures", f"{key} of the report", report.get(key), facts.get(key))
    here = installed_code(with_kinds(study.protocol, study.directory))
    sealed = study.sealed.seal.code
    needed = sealed.keys() | set(_CALCULATES)
    other = sorted(name for name in needed if here.get(name) != sealed.get(name))
    if other:
        checks.cannot_say(
            "figures",
            f"what the sealed code would say: {', '.join(other)} are not installed as sealed; "
            "the comparison is with what is installed here",
        )
    _check_pages(checks, study, report, same_code=not other)
    figures = json.loads(json.dumps(figures_of(study, revealed)))
    compare_figures(checks, "", report.get("figures"), figures)


def compare_figures(checks: Checks, place: str, stated: Any, found: Any) -> None:
    """Compares figures one by one; numbers may differ by what the order of additions does.

    Args:
        checks: Takes the findings.
        place: Names of the mappings around, each behind a dot.
        stated: What a report says.
        found: What is computed.
    """
    if isinstance(stated, dict) and isinstance(found, dict):
        for key in sorted(stated.keys() | found.keys()):
            compare_figures(checks, f"{place}.{key}", stated.get(key), found.get(key))
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for index, pair in enumerate(zip(stated, found, strict=True)):
            compare_figures(checks, f"{place}.{index}", *pair)
    elif type(stated) is float and type(found) is float:
        name = place.rpartition(".")[2]
        smallest = 0.0 if name.startswith("p_") or name.endswith("_p") else _ABSOLUTE
        # False for a number that is none.
        if not math.isclose(stated, found, rel_tol=_RELATIVE, abs_tol=smallest):
            checks.compare("figures", place.removeprefix("."), f"{stated!r}", f"{found!r}")
    elif type(stated) is not type(found):
        checks.compare("figures", place.removeprefix("."), f"{stated!r}", f"{found!r}")
    else:
        checks.compare("figures", place.removeprefix("."), stated, found)


def _check_pages(
    checks: Checks, study: Study, report: Mapping[str, Any], *, same_code: bool
) -> None:
    """Compares the text of the report with what is made of its figures."""
    for path in sorted(study.report.rglob("*")):
        if path == study.report / "report.txt":
            text = report_text(report, study.protocol).encode()
            same = read_bounded(path, _LARGEST_REPORT) == text
            if not same and same_code:
                checks.fail("figures", "report.txt is not the text of report.json")
            elif not same:
                checks.cannot_say("figures", "whether report.txt is that of the sealed code")
        elif path.is_file() and path != study.report / "report.json":
            name = path.relative_to(study.report).as_posix()
            checks.cannot_say("figures", f"whether {name} is right: `report` makes it anew")


def _json(path: Path) -> dict[str, Any]:
    data = read_bounded(path, _LARGEST_REPORT)
    if _nesting(data) > _DEEPEST:
        # Recursion has no limit of its own where libraries have raised it.
        raise RecordError(f"{path} is nested too deeply")
    try:
        values = json.loads(data)
    except ValueError as error:
        raise RecordError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise RecordError(f"{path} is no report")
    return values


def _nesting(data: bytes) -> int:
    """Returns how deeply brackets are nested, those in texts included."""
    read = np.frombuffer(data, dtype=np.uint8)
    steps = np.isin(read, (ord("["), ord("{"))).astype(np.int64)
    steps -= np.isin(read, (ord("]"), ord("}")))
    return int(np.cumsum(steps).max(initial=0))
