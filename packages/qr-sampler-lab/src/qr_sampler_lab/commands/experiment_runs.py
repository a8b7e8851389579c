# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler experiment``: the commands that carry a sealed study out and hand it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.parsing.assignments import engine_assignments
from qr_sampler_lab.commands.studies import FAULT_STATUS, HERE, StudyArgument, study_at

if TYPE_CHECKING:
    from qr_sampler_lab.experiments.running.conduct import Conduct

__all__ = ["runs"]

DRAND: Final = "https://api.drand.sh"
"""The public servers of drand."""

AtOnce = Annotated[
    int,
    typer.Option(min=1, help="Most requests served together; never fewer than one session."),
]
EngineArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-arg",
        metavar="KEY=VALUE",
        help="Argument of vLLM's engine, its value as JSON or text; repeatable.",
    ),
]
RoundFile = Annotated[
    Path | None,
    typer.Option(
        "--round",
        metavar="FILE",
        help="JSON of the drand round that decides the order, as drand answers; without it the "
        "network is asked.",
    ),
]
Tsa = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Authority that stamps times (RFC 3161) meanwhile."),
]
Drand = Annotated[
    str, typer.Option(metavar="URL", help="Server of drand, whose rounds the ledgers take in.")
]
Deposit = Annotated[
    str | None,
    typer.Option(metavar="DIR|GIT-REMOTE", help="Second place for anchors and finished ledgers."),
]
Anchors = Annotated[
    bool,
    typer.Option("--anchors/--no-anchors", help="Ask outside witnesses while the study runs."),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show vLLM's log and tracebacks.")]


runs = typer.Typer()
"""The commands, to be merged into the group."""


@runs.command()
@reports_errors
def run(
    study: StudyArgument = HERE,
    at_once: AtOnce = 32,
    engine_args: EngineArguments = None,
    round_file: RoundFile = None,
    tsa: Tsa = None,
    drand: Drand = DRAND,
    deposit: Deposit = None,
    anchors: Anchors = True,
    verbose: Verbose = False,
) -> None:
    """Carry a sealed study out: all arms in one engine, in the order that nobody chose.

    Refuses a study that is not what was sealed. Shows counts, never results. Ends by the sealed
    rule alone; Ctrl-C leaves the rest for 'resume'.
    """
    from qr_sampler_lab.experiments.running.conduct import Conduct

    _conduct(
        study,
        Conduct(
            at_once=at_once,
            engine_arguments=engine_assignments(engine_args or []),
            round_file=round_file,
            tsa=tsa if anchors else None,
            drand=drand if anchors else None,
            deposit=deposit if anchors else None,
            verbose=verbose,
        ),
    )


@runs.command()
@reports_errors
def resume(
    study: StudyArgument = HERE,
    at_once: AtOnce = 32,
    engine_args: EngineArguments = None,
    tsa: Tsa = None,
    drand: Drand = DRAND,
    deposit: Deposit = None,
    anchors: Anchors = True,
    verbose: Verbose = False,
) -> None:
    """Go on with a study that was interrupted.

    A session that had begun counts with what it has emitted, and is not repeated.
    """
    from qr_sampler_lab.experiments.running.conduct import Conduct

    _conduct(
        study,
        Conduct(
            resume=True,
            at_once=at_once,
            engine_arguments=engine_assignments(engine_args or []),
            tsa=tsa if anchors else None,
            drand=drand if anchors else None,
            deposit=deposit if anchors else None,
            verbose=verbose,
        ),
    )


@runs.command()
@reports_errors
def unblind(
    study: StudyArgument = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make known which arm each alias is, for ever; the ledgers are fixed in the journal first."""
    from qr_sampler_lab.experiments.results.revealed import unblind as make_known

    if not yes:
        typer.confirm("Unblinding cannot be undone. Go on?", abort=True)
    entry = make_known(study_at(study))
    for alias, arm in sorted(entry.values["aliases"].items(), key=lambda pair: pair[::-1]):
        typer.echo(f"{alias}  {arm}")


@runs.command()
@reports_errors
def report(
    study: StudyArgument = HERE,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", help="Report with other code, or on a damaged ledger; the report says so."
        ),
    ] = False,
    html: Annotated[
        bool,
        typer.Option("--html", help="Write a page with the analysis of all tokens beside it."),
    ] = False,
) -> None:
    """Compute the report of an unblinded study from its chained lines, the primary result first."""
    from qr_sampler_lab.experiments.results.pages import write_analysis
    from qr_sampler_lab.experiments.results.report import write_report
    from qr_sampler_lab.experiments.results.report_text import report_text

    opened = study_at(study)
    typer.echo(report_text(write_report(opened, anyway=anyway), opened.protocol), nl=False)
    if html:
        typer.echo(f"{write_analysis(opened, anyway=anyway)}: what all tokens show, with pictures")


@runs.command()
@reports_errors
def bundle(
    study: StudyArgument = HERE,
    *,
    to: Annotated[Path, typer.Option(metavar="DIR", help="New directory for the bundle.")],
    text: Annotated[
        bool, typer.Option("--text/--no-text", help="Include token ids and prompts.")
    ] = True,
) -> None:
    """Put everything that a stranger needs to check an unblinded study into one directory."""
    from qr_sampler_lab.experiments.bundle.making import make_bundle

    make_bundle(study_at(study), to, text=text)
    typer.echo(f"{to}: check it with `qr-sampler experiment verify {to}`")


@runs.command()
@reports_errors
def verify(
    directory: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Directory of the bundle.")],
    head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHA256",
            help="Head of the register, the journal or a ledger that somebody else has kept: fails "
            "unless a line has it. May be given several times.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Check a bundle, claim by claim: each holds, fails, or cannot be said.

    Needs no network. Exits with 0 if nothing fails, with 1 if a claim fails, with 2 if there is no
    bundle.
    """
    from qr_sampler_lab.experiments.bundle.checks import print_checks
    from qr_sampler_lab.experiments.bundle.kept_heads import checked_heads
    from qr_sampler_lab.experiments.bundle.verifying import verify_bundle

    checks = verify_bundle(directory, checked_heads(head or ()))
    if as_json:
        typer.echo(json.dumps(checks.as_data(), indent=2))
    else:
        print_checks(checks)
    if checks.fails:
        raise typer.Exit(FAULT_STATUS)


@runs.command("latency-profile")
@reports_errors
def latency_profile(
    ledgers: Annotated[
        list[Path],
        typer.Argument(metavar="LEDGER...", help="Ledgers, or directories of them."),
    ],
    source: Annotated[str, typer.Option(help="Name of the source whose draws count.")],
    output: Annotated[Path, typer.Option(help="New file for the profile.")],
) -> None:
    """Measure the latencies of a source in ledgers, for the source 'sham' (QR_SHAM_PROFILE)."""
    from qr_sampler.errors import ConfigError
    from qr_sampler.whole_file import write_whole
    from qr_sampler_cli.audit.files import ledgers_of
    from qr_sampler_lab.experiments.running.recorded_latency import latency_profile as measured

    files = [file.path for run_files in ledgers_of(ledgers) for file in run_files]
    profile = measured(files, source)
    try:
        write_whole(output, profile.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}") from error
    for series in profile.sizes:
        median_ms = series.quantiles_ns["0.5"] / 1e6
        typer.echo(f"{series.bytes:,} bytes: {series.draws:,} draws, median {median_ms:.3f} ms")


def _conduct(directory: Path, how: Conduct) -> None:
    """Carries a study out with its progress on standard error."""
    from dataclasses import replace

    from qr_sampler_cli.terminal.progress import counting_bar, remark
    from qr_sampler_lab.experiments.running.conduct import conduct
    from qr_sampler_lab.experiments.running.instructions import instructions_of

    study = study_at(directory)
    told = instructions_of(study)

    def on_session(session: Any) -> None:
        if text := told(session):
            remark(text)

    with counting_bar("experiment", unit="requests") as count:
        finished = conduct(study, replace(how, on_progress=count, on_session=on_session))
    command = "unblind" if finished else "resume"
    state = "finished" if finished else "interrupted"
    typer.echo(f"{directory} is {state}; go on with `qr-sampler experiment {command} {directory}`")
