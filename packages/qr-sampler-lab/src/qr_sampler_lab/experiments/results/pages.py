# SPDX-License-Identifier: Apache-2.0
"""The analysis of all tokens of a study as a page with pictures, beside its report."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qr_sampler_lab.experiments.results.revealed import reveal
from qr_sampler_lab.experiments.study import Study

__all__ = ["write_analysis"]

_BY: Final = ("condition",)

_WINDOW: Final = 2**18
"""Tokens among which those of a run are put in the order of time."""


def write_analysis(study: Study, *, anyway: bool = False) -> Path:
    """Writes ``report/analysis.html``: what ``qr-sampler analyze`` says of the aliases of a study.

    It explores; what decides is in the report.

    Args:
        study: An unblinded study that has a report.
        anyway: Whether ledgers that fail the audit are analysed, too.

    Returns:
        The file.

    Raises:
        QRSamplerError: When the study is not unblinded, or its ledgers are refused.
    """
    from qr_sampler_lab.report.analysis import Options, TokenAnalysis
    from qr_sampler_lab.report.ledgers import ReportInput
    from qr_sampler_lab.report.making import report_of
    from qr_sampler_lab.report.showing.html import page
    from qr_sampler_lab.report.showing.writing import write_page

    reveal(study)
    told = ReportInput.of([study.ledgers], by=_BY, anyway=anyway, window=_WINDOW)
    analysis = TokenAnalysis(Options(by=_BY, session="trial"))
    try:
        analysis.add_all(told.chunks)
        report = report_of(told, analysis)
    finally:
        analysis.close()
    path = study.report / "analysis.html"
    write_page(path, page(report))
    return path
