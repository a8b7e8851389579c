# SPDX-License-Identifier: Apache-2.0
"""The report of a study: computed from its chained lines, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from qr_sampler.records.files import ledgers_in
from qr_sampler.whole_file import write_whole
from qr_sampler_cli.audit.auditor import audit_runs
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_lab.experiments.comparing import differences
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.results.figures import StudyData, study_figures
from qr_sampler_lab.experiments.results.latencies import latency_figures
from qr_sampler_lab.experiments.results.observations import observations_in
from qr_sampler_lab.experiments.results.report_text import report_text
from qr_sampler_lab.experiments.results.revealed import Revealed, reveal
from qr_sampler_lab.experiments.running.heads import head_in
from qr_sampler_lab.experiments.study import Study

__all__ = ["REPORT_FORMAT", "facts_of", "figures_of", "report_of", "write_report"]

REPORT_FORMAT: Final = "qr-sampler report 1"


def write_report(study: Study, *, anyway: bool = False) -> dict[str, Any]:
    """Computes the report of a study and writes it: ``report.json`` and ``report.txt``.

    Args:
        study: An unblinded study.
        anyway: Whether it is written, stamped, although something stands in its way.

    Returns:
        What ``report.json`` holds.

    Raises:
        StudyError: When it is not unblinded, its protocol, prompts or ledgers were changed, or,
            unless *anyway*, the code is not the sealed one or a ledger fails the audit; and when
            the disk refuses it.
    """
    report = report_of(study, anyway=anyway)
    text = json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    try:
        study.report.mkdir(exist_ok=True)
        write_whole(study.report / "report.json", text, replace=True)
        write_whole(study.report / "report.txt", report_text(report, study.protocol), replace=True)
    except OSError as error:
        raise StudyError(f"{study.report} cannot be written: {error.strerror}") from error
    return report


def report_of(study: Study, *, anyway: bool = False) -> dict[str, Any]:
    """Returns the report of a study, as JSON-ready values. Arguments and errors as above."""
    revealed = reveal(study)
    changed = _changed_ledgers(study, revealed)
    if changed:
        raise StudyError(
            f"not as they were when the arms became known: {', '.join(changed)}; bring back the "
            "ledgers that the journal names"
        )
    changed = differences(study, model=False, code=False)
    if changed:
        raise StudyError(f"not as it was sealed: {'; '.join(changed)}; bring back what was sealed")
    stamps = [*differences(study, model=False), *_failed_rungs(study)]
    if stamps and not anyway:
        raise StudyError(
            f"{'; '.join(stamps)}. Install what was sealed, or pass --anyway for a report that "
            "says so"
        )
    return {
        **facts_of(study, revealed),
        "stamps": stamps,
        "figures": figures_of(study, revealed),
    }


def facts_of(study: Study, revealed: Revealed) -> dict[str, Any]:
    """Returns what a report says beside its figures: the study, its end, its ledgers."""
    standing = study.journal.standing()
    return {
        "format": REPORT_FORMAT,
        "study": study.protocol.name,
        "title": study.protocol.title,
        "kind": study.protocol.kind,
        "seal": study.sealed.digest,
        "ended": standing.ended,
        "reason": standing.reason,
        "sessions": {
            "planned": len(revealed.sessions),
            "begun": standing.sessions_begun,
            "ended": standing.sessions_ended,
        },
        "resumed": standing.resumed,
        "marks": standing.marks,
        "ledgers": dict(revealed.heads),
    }


def figures_of(study: Study, revealed: Revealed) -> dict[str, Any]:
    """Returns the figures of an unblinded study."""
    paths = ledgers_in(study.ledgers)
    data = StudyData(study.protocol, revealed.main_arms, revealed.sessions)
    data.add(observations_in(paths))
    return {**study_figures(data), "latency": latency_figures(study.protocol, paths)}


def _changed_ledgers(study: Study, revealed: Revealed) -> list[str]:
    """Returns the names of ledgers that are not what they were when the arms became known."""
    found = {path.name: path for path in ledgers_in(study.ledgers)}
    return sorted(
        name
        for name in found.keys() | revealed.heads.keys()
        if name not in found or head_in(found[name]) != revealed.heads.get(name)
    )


def _failed_rungs(study: Study) -> Sequence[str]:
    paths = ledgers_in(study.ledgers)
    if not paths:
        return ["there is no ledger"]
    return [
        f"a ledger fails the audit ({rung.name}: {rung.failures[0].where} {rung.failures[0].what})"
        for run in audit_runs(ledgers_of(paths))
        for rung in run.rungs[:2]
        if rung.failed
    ]
