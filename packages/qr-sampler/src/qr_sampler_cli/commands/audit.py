# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler audit``: what the records of a ledger prove by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.rederivation.names import DeviceName, DtypeName
from qr_sampler_cli.audit.witness_options import WitnessOptions
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.parsing.option_groups import with_options

__all__ = ["FAILED_STATUS", "audit"]

FAILED_STATUS: Final = 1
"""Exit status if a rung fails."""


@reports_errors
@with_options(WitnessOptions)
def audit(
    witnesses: WitnessOptions,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH...", help="Ledgers, or directories whose *.jsonl are ledgers."
        ),
    ] = None,
    emitted: Annotated[
        Path | None,
        typer.Option(
            help="Tokens that clients received, to be compared: JSON Lines with request_key and "
            "token_ids."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="The model of the run: tokens are derived again from it and from u. Needs the "
            "extra 'rescore', and the prompts.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts, if they are not beside the ledgers: JSON Lines with request_key and "
            "token_ids."
        ),
    ] = None,
    dtype: Annotated[
        DtypeName, typer.Option(help="What the model computes in when tokens are derived again.")
    ] = "float32",
    device: Annotated[DeviceName, typer.Option(help="Where it does.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", help="Print the JSON Schema of a line instead, and audit nothing."
        ),
    ] = False,
) -> None:
    """Check what the records of ledgers prove by themselves, rung by rung.

    1 whole, 2 complete, 3 just in time, 4 consistent, 5 witnessed, 6 re-derived: every rung holds,
    fails (with file, line and reason) or cannot be said (with what is missing). Files that continue
    each other are read as one ledger. Reads only, needs no network, and is over in seconds per
    million tokens unless a model derives them again. Exits with 0 if nothing fails, with 1 if a
    rung fails, with 2 if a path is not a ledger.
    """
    from qr_sampler_cli.audit.auditor import audit_runs
    from qr_sampler_cli.audit.files import ledgers_of
    from qr_sampler_cli.audit.rederivation.setup import model_under_audit
    from qr_sampler_cli.audit.report import as_data, print_runs
    from qr_sampler_cli.audit.rungs.emitted import ReceivedTokens
    from qr_sampler_cli.audit.schema.lines import json_schema

    if schema:
        typer.echo(json_schema(), nl=False)
        return
    if not paths:
        raise ConfigError("there is nothing to audit: name ledgers, or a directory of them")
    received = None if emitted is None else ReceivedTokens(emitted)
    ledgers, evidence = ledgers_of(paths), witnesses.evidence()
    with model_under_audit(
        model, ledgers, prompts=prompts, dtype=dtype, device=device
    ) as under_audit:
        runs = audit_runs(ledgers, received=received, evidence=evidence, under_audit=under_audit)
    if as_json:
        typer.echo(json.dumps(as_data(runs), indent=2))
    else:
        print_runs(runs)
    if any(run.fails for run in runs):
        raise typer.Exit(FAILED_STATUS)
