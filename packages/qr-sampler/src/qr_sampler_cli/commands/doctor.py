# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler doctor``: predicts what will happen when an engine is started here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from qr_sampler.errors import ConfigError
from qr_sampler_cli.doctor.checks import examine_environment
from qr_sampler_cli.doctor.choice import choice_findings
from qr_sampler_cli.doctor.local.checks import examine_local
from qr_sampler_cli.doctor.local.request import LocalRequest
from qr_sampler_cli.doctor.request import EngineRequest, engine_arguments
from qr_sampler_cli.engines.choice import VLLM, EngineName, choose_engine, title_of
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.findings.finding import Finding, worst
from qr_sampler_cli.findings.report import print_findings
from qr_sampler_cli.parsing.assignments import engine_assignments
from qr_sampler_cli.parsing.option_groups import with_options
from qr_sampler_cli.terminal.consoles import stdout_reserved
from qr_sampler_local.engines import KNOWN_ENGINES

__all__ = ["PROBLEM_STATUS", "doctor"]

doctor = typer.Typer(
    invoke_without_command=True, help="Check an environment before an engine is started."
)

PROBLEM_STATUS: Final = 1
"""Exit status if there is a problem."""


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
    _tell(findings, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """What all engines in the user's own process have in common."""

    model: Annotated[
        str | None,
        typer.Option(help="Model: a directory or a name; for llama.cpp a .gguf file."),
    ] = None
    """Path or name of the model."""
    engine_args: Annotated[
        list[str] | None,
        typer.Option(
            "--engine-arg",
            metavar="KEY=VALUE",
            help="Argument of the engine, its value as JSON or text; repeatable.",
        ),
    ] = None
    """Further arguments of the engine, each as ``KEY=VALUE``."""
    token: Annotated[
        bool,
        typer.Option(
            "--token", help="Load the model and generate one token; not for vLLM, see 'generate'."
        ),
    ] = False
    """Whether a token is generated."""
    probe: Annotated[
        bool, typer.Option("--probe", help="Draw one byte from the configured source.")
    ] = False
    """Whether one byte is drawn."""
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False
    """Whether JSON is printed."""

    def examine(self, name: str) -> list[Finding]:
        """Returns the findings about an engine.

        Args:
            name: Its name as users type it.

        Raises:
            ConfigError: When the options do not go together.
        """
        arguments = engine_assignments(self.engine_args or [])
        if name != VLLM:
            request = LocalRequest(
                engine=name, model=self.model, arguments=arguments, token=self.token
            )
            return examine_local(request, probe=self.probe)
        if self.token:
            raise ConfigError("--token: vLLM starts for minutes; use: qr-sampler generate")
        return examine_environment(EngineRequest(self.model, arguments), probe=self.probe)


@doctor.callback()
@reports_errors
@with_options(DoctorOptions)
def _whichever(options: DoctorOptions, context: typer.Context) -> None:
    """Check an environment before an engine is started.

    Without the name of an engine, the one is examined that 'qr-sampler generate' would take; which
    one and why, the report says first. Nothing is drawn unless --probe or --token is given. Exits
    with 0 if there is no problem, with 1 otherwise.
    """
    if context.invoked_subcommand is not None:
        return
    with stdout_reserved():
        findings = list(choice_findings(options.model or ""))
        if worst(findings) != "problem":
            findings += options.examine(choose_engine(EngineName.AUTO, options.model or "").name)
    _tell(findings, as_json=options.as_json)


def _command(name: str) -> Callable[..., None]:
    """Returns the command that examines an engine in the user's own process."""

    @reports_errors
    @with_options(DoctorOptions)
    def examine(options: DoctorOptions) -> None:
        with stdout_reserved():
            findings = options.examine(name)
        _tell(findings, as_json=options.as_json)

    examine.__doc__ = f"""Predict what will happen when {title_of(name)} computes in a process here.

    Its packages are imported in a separate process. Draws nothing unless --probe or --token is
    given. Exits with 0 if there is no problem, with 1 otherwise.
    """
    return examine


for _engine in KNOWN_ENGINES:
    doctor.command(_engine.name)(_command(_engine.name))


def _tell(findings: list[Finding], *, as_json: bool) -> None:
    """Prints the findings and ends with the status that they amount to."""
    if as_json:
        typer.echo(json.dumps(_as_data(findings), indent=2))
    else:
        print_findings(findings)
    if worst(findings) == "problem":
        raise typer.Exit(PROBLEM_STATUS)


def _as_data(findings: Iterable[Finding]) -> dict[str, Any]:
    rows = [dataclasses.asdict(finding) for finding in findings]
    return {"verdict": worst(findings), "findings": rows}
