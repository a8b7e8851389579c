# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler analyze``: the statistics of ledgers that the audit admits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qr_sampler_cli.failures import reports_errors

__all__ = ["analyze"]


@reports_errors
def analyze(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Ledgers, or directories of them; or tables that `export` has written.",
        ),
    ],
    by: Annotated[
        str, typer.Option(metavar="COLUMNS", help="Labels that tokens are split into arms by.")
    ] = "condition,source",
    control: Annotated[
        str,
        typer.Option(metavar="ARM", help="Arm that all others are compared with; else all pairs."),
    ] = "",
    session: Annotated[
        str,
        typer.Option(metavar="COLUMN", help="What tells sessions apart: trial or run, for one."),
    ] = "",
    tau: Annotated[
        float,
        typer.Option(
            min=1e-6,
            max=100.0,
            help="Scale of the shifts that e-processes bet on, in standard deviations of a token.",
        ),
    ] = 0.1,
    alpha: Annotated[
        float, typer.Option(min=1e-9, max=0.5, help="Error probability of the e-processes.")
    ] = 0.05,
    block_tokens: Annotated[
        int, typer.Option(min=2, max=10**9, help="Tokens per block of the block means.")
    ] = 1000,
    baseline: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Baseline that u refers to, for its length."),
    ] = None,
    exploratory: Annotated[
        bool,
        typer.Option("--exploratory", help="Add tests that only suggest hypotheses."),
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page, too.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write all tests and all figures as CSV, too."),
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", help="Analyse ledgers that fail the audit, too; the report says so."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    window: Annotated[
        int,
        typer.Option(
            metavar="TOKENS",
            min=1,
            max=2**24,
            help="Number of tokens among which those of a run are put in the order of time.",
        ),
    ] = 2**16,
) -> None:
    """Compare the arms of an experiment, and every arm with the law of ideal bytes.

    Ledgers are audited first: one that fails rung 1 or 2, or has no chain, is refused. Tokens are
    pooled and taken in the order of their time. The primary comparison comes first.
    """
    from qr_sampler_lab.report.adding.arms import checked_columns
    from qr_sampler_lab.report.analysis import Options, TokenAnalysis
    from qr_sampler_lab.report.ledgers import ReportInput
    from qr_sampler_lab.report.making import report_of
    from qr_sampler_lab.report.showing.csv_files import as_data, write_tables
    from qr_sampler_lab.report.showing.html import page
    from qr_sampler_lab.report.showing.text import print_report
    from qr_sampler_lab.report.showing.writing import baselines_in, write_page

    columns = checked_columns(by)
    options = Options(
        by=columns,
        session=checked_columns(session)[0] if session else "",
        control=control,
        tau=tau,
        alpha=alpha,
        block_tokens=block_tokens,
        baselines=baselines_in(baseline or []),
        exploratory=exploratory,
    )
    told = ReportInput.of(paths, by=columns, anyway=anyway, window=window)
    analysis = TokenAnalysis(options)
    try:
        analysis.add_all(told.chunks)
        report = report_of(told, analysis)
    finally:
        analysis.close()
    if html is not None:
        write_page(html, page(report))
    if csv is not None:
        write_tables(report, csv)
    if as_json:
        typer.echo(json.dumps(as_data(report), indent=2))
    else:
        print_report(report)
