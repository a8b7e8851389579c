# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler experiment``: studies that are sealed before they begin."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qr_sampler.errors import QRSamplerError
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.terminal.consoles import printable
from qr_sampler_lab.commands.experiment_marks import marking
from qr_sampler_lab.commands.experiment_runs import runs
from qr_sampler_lab.commands.studies import (
    FAULT_STATUS,
    HERE,
    StudyArgument,
    StudyOption,
    study_at,
)

if TYPE_CHECKING:
    from qr_sampler_lab.experiments.status import StudyStatus

__all__ = ["experiment"]

experiment = typer.Typer(no_args_is_help=True, help="Plan, seal, run and report sealed studies.")


@experiment.callback()
def _group() -> None:
    """Plan, seal, run and report sealed studies."""


@experiment.command()
@reports_errors
def new(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="Name of the study; a directory.")],
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PROTOCOL",
            help="A shipped protocol by name, or a file to begin with.",
        ),
    ] = None,
) -> None:
    """Make a directory with a commented PROTOCOL.yaml and its prompts."""
    from qr_sampler_lab.experiments.beginning import new_study

    study = new_study(name, origin)
    typer.echo(f"{study.protocol_path}: edit it, then `qr-sampler experiment check {name}`")


@experiment.command()
@reports_errors
def check(
    study: StudyArgument = HERE,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of PROTOCOL.yaml instead.")
    ] = False,
) -> None:
    """Print a protocol as a preregistration, with its power and what speaks against it.

    Exits with 1 if it cannot be sealed as it is; the reasons are on standard error.
    """
    from qr_sampler_lab.experiments.checking.power import power_of
    from qr_sampler_lab.experiments.checking.preregistration import preregistration
    from qr_sampler_lab.experiments.checking.remarks import remarks_on
    from qr_sampler_lab.experiments.protocol.schema import json_schema

    if schema:
        typer.echo(json_schema(), nl=False)
        return
    opened = study_at(study)
    power = power_of(opened.protocol)
    remarks = remarks_on(opened, power)
    warnings = [remark for remark in remarks if not remark.prevents]
    typer.echo(preregistration(opened.protocol, power, warnings), nl=False)
    errors = [remark for remark in remarks if remark.prevents]
    for remark in errors:
        typer.echo(f"error: {remark.text}", err=True)
    if errors:
        raise typer.Exit(FAULT_STATUS)


@experiment.command()
@reports_errors
def seal(
    study: StudyArgument = HERE,
    drand: Annotated[
        bool,
        typer.Option(
            "--drand/--no-drand",
            help="Ask drand for its latest round, so that the seal is provably no older.",
        ),
    ] = True,
    drand_file: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="Take the round from a file instead, as drand answers."),
    ] = None,
) -> None:
    """Make a study final, and enter it in the register of the laboratory for ever.

    The digest that is printed is that of seal.json, as sha256sum prints it: publish it.
    """
    from qr_sampler_lab.experiments.sealing import seal_study

    opened = study_at(study)
    asked = (drand or drand_file is not None) and not opened.is_sealed
    witness = _witness(drand_file) if asked else None
    sealed = seal_study(opened, witness=witness)
    if sealed.seal.witness is None:
        typer.echo("no outside witness: nothing proves when the study was sealed", err=True)
    typer.echo(sealed.digest)


def _witness(file: Path | None) -> dict[str, Any] | None:
    """Returns the latest round of drand, ``None`` without a network; a bad file is an error."""
    from qr_sampler_lab.experiments.beacon import fetched_round

    try:
        return fetched_round(None, file)
    except QRSamplerError as error:
        if file is not None:
            raise
        typer.echo(f"warning: {error}", err=True)
        return None


@experiment.command()
@reports_errors
def status(
    study: StudyArgument = HERE,
    model: Annotated[
        bool, typer.Option("--model/--no-model", help="Compare the files of the model, too.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Enter an end in the register that a crash has kept out of it."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show where a study stands, in counts by alias, and whether all of its files are whole.

    Never shows results. Exits with 1 if something is not as it was sealed or registered.
    """
    from qr_sampler_lab.experiments.ending import enter_end
    from qr_sampler_lab.experiments.status import status_of

    opened = study_at(study)
    if repair:
        enter_end(opened)
    found = status_of(opened, model=model)
    if as_json:
        typer.echo(json.dumps(_as_data(found), indent=2))
    else:
        for line in _lines(found):
            typer.echo(line)
    if found.faults:
        raise typer.Exit(FAULT_STATUS)


def _as_data(found: StudyStatus) -> dict[str, Any]:
    standing = found.standing
    return {
        "name": found.name,
        "state": found.state,
        "witness": found.witness,
        "standing": None if standing is None else asdict(standing),
        "faults": found.faults,
        "studies": [
            {
                "name": study.name,
                "seal": study.seal,
                "directory": study.directory,
                "state": study.end.kind if study.end else "open",
                "reason": study.end.values["reason"] if study.end else "",
            }
            for study in found.studies
        ],
    }


def _lines(found: StudyStatus) -> list[str]:
    lines = [f"{found.name}: {found.state}"]
    standing = found.standing
    if standing is not None:
        witness = "a round of drand" if found.witness else "no outside witness"
        lines += [
            f"seal      {standing.seal} ({witness})",
            f"sessions  {standing.sessions_ended:,} of {found.sessions:,} ended",
            f"          {standing.sessions_begun:,} begun",
        ]
        lines += [
            f"{alias:<14}{standing.requests[alias]:>10,} requests {tokens:>12,} tokens"
            for alias, tokens in sorted(standing.tokens.items())
        ]
        lines.append(f"marks     {standing.marks:,}; resumed {standing.resumed:,} times")
        if standing.reason:
            lines.append(f"reason    {standing.reason}")
    for study in found.studies:
        state = study.end.kind if study.end else "open"
        reason = f": {study.end.values['reason']}" if study.end and state == "aborted" else ""
        lines.append(f"register  {study.name} {study.seal[:12]} {state}{reason}")
    lines += [f"fault     {fault}" for fault in found.faults]
    return [printable(" ".join(line.splitlines())) for line in lines]


@experiment.command()
@reports_errors
def abort(
    reason: Annotated[str, typer.Argument(metavar="REASON", help="Why, for everybody to read.")],
    study: StudyOption = HERE,
) -> None:
    """End a sealed study before its end. It stays in the register, with the reason, for ever."""
    from qr_sampler_lab.experiments.ending import abort_study

    opened = study_at(study)
    abort_study(opened, reason)
    typer.echo(f"{opened.sealed.seal.name} is aborted, and stays in {opened.register.path}")


@experiment.command()
@reports_errors
def mark(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What happened, or was done.")],
    study: StudyOption = HERE,
) -> None:
    """Write an event into the journal of a sealed study: operator, participant, temperature.

    Its line has the monotonic and the wall clock, so that it can be placed among the tokens.
    """
    opened = study_at(study)
    sealed = opened.sealed
    entry = opened.journal.mark(text)
    typer.echo(f"{sealed.seal.name}: mark {entry.n}, head {entry.head}")


experiment.add_typer(marking)
# Runs: what carries a sealed study out.
experiment.add_typer(runs)
