# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler doctor``: predicts what will happen when an engine is started here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer

from qr_sampler_cli.doctor.checks import examine_environment
from qr_sampler_cli.doctor.request import EngineRequest, engine_arguments
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.findings.finding import Finding, worst
from qr_sampler_cli.findings.report import print_findings
from qr_sampler_cli.terminal.consoles import stdout_reserved

__all__ = ["PROBLEM_STATUS", "doctor"]

doctor = typer.Typer(no_args_is_help=True, help="Check an environment before an engine is started.")

PROBLEM_STATUS: Final = 1
"""Exit status if there is a problem."""


@doctor.callback()
def _group() -> None:
    """Check an environment before an engine is started."""


@doctor.command("vllm")
@reports_errors
def vllm(
    model: Annotated[
        str | None,
        typer.Option(help="Model for vLLM; the files of a directory are examined, too."),
    ] = None,
    speculative_config: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Speculative decoding, as 'vllm serve' takes it."),
    ] = None,
    tensor_parallel_size: Annotated[
        int | None, typer.Option(min=1, help="Number of tensor-parallel ranks.")
    ] = None,
    logits_processors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:CLASS", help="What 'vllm serve' is given as well; repeatable."
        ),
    ] = None,
    max_num_seqs: Annotated[
        int | None, typer.Option(min=1, help="Largest number of sequences in a step.")
    ] = None,
    engine_args: Annotated[
        list[str] | None,
        typer.Option(
            "--engine-arg",
            metavar="KEY=VALUE",
            help="Any other argument of vLLM's engine, its value as JSON or text; repeatable.",
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Draw one byte from the configured source.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Predict what will happen when vLLM is started here with these arguments.

    Starts no engine, loads no weights, and draws nothing unless --probe is given. vLLM is imported
    in a separate process, which takes about half a minute. Exits with 0 if there is no problem,
    with 1 otherwise.
    """
    arguments = engine_arguments(
        speculative_config=speculative_config,
        tensor_parallel_size=tensor_parallel_size,
        logits_processors=logits_processors or (),
        max_num_seqs=max_num_seqs,
        assignments=engine_args or (),
    )
    with stdout_reserved():
        findings = examine_environment(EngineRequest(model, arguments), probe=probe)
    if as_json:
        typer.echo(json.dumps(_as_data(findings), indent=2))
    else:
        print_findings(findings)
    if worst(findings) == "problem":
        raise typer.Exit(PROBLEM_STATUS)


def _as_data(findings: Iterable[Finding]) -> dict[str, Any]:
    rows = [dataclasses.asdict(finding) for finding in findings]
    return {"verdict": worst(findings), "findings": rows}
