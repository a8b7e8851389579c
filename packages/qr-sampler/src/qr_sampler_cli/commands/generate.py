# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler generate``: text from real vLLM, every token with its record."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from qr_sampler.admission.overrides import KEY_PREFIX
from qr_sampler.errors import ConfigError
from qr_sampler_cli.failures import ExitCode, reports_errors
from qr_sampler_cli.generation.records_file import RecordsFile
from qr_sampler_cli.generation.report import print_json, print_summary, print_texts, verdict
from qr_sampler_cli.generation.run import GenerationRequest, run_generation
from qr_sampler_cli.parsing.assignments import engine_assignments, pairs

__all__ = ["generate"]

SAMPLING: Final = "Sampling (the deployment's QR_* settings apply where nothing is given)"
ENTROPY: Final = "Entropy"
OUTPUT: Final = "Output"


@reports_errors
def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="Texts to continue.")
    ] = None,
    *,
    model: Annotated[
        str, typer.Option(help="Model for vLLM: a directory or a name on the model hub.")
    ],
    prompt_file: Annotated[
        Path | None,
        typer.Option(help="File with one prompt per line; '-' reads standard input."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens per prompt.")] = 64,
    source: Annotated[
        str | None,
        typer.Option(
            help="Entropy source, see 'qr-sampler sources'; sets QR_ENTROPY_SOURCE_TYPE.",
            rich_help_panel=ENTROPY,
        ),
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(
            help="Source that takes over while it is unavailable, or 'error'; sets "
            "QR_FALLBACK_MODE.",
            rich_help_panel=ENTROPY,
        ),
    ] = None,
    require_primary: Annotated[
        bool,
        typer.Option(
            "--require-primary",
            help="Exit with status 3 if any token came from another source.",
            rich_help_panel=ENTROPY,
        ),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(help="Temperature of the 'fixed' strategy.", rich_help_panel=SAMPLING),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(help="Keep the k most probable tokens.", rich_help_panel=SAMPLING),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Keep this much probability.", rich_help_panel=SAMPLING),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            help="Keep tokens this probable, relative to the most probable one.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="Temperature strategy, such as 'edt'.", rich_help_panel=SAMPLING),
    ] = None,
    amplifier: Annotated[
        str | None, typer.Option(help="Signal amplifier.", rich_help_panel=SAMPLING)
    ] = None,
    sample_count: Annotated[
        int | None, typer.Option(help="Bytes drawn per token.", rich_help_panel=SAMPLING)
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="QR_KEY=VALUE",
            help="Any per-request option, such as qr_edt_exponent=0.7; repeatable.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    engine_args: Annotated[
        list[str] | None,
        typer.Option(
            "--engine-arg",
            metavar="KEY=VALUE",
            help="Argument of vLLM's engine, its value as JSON or text, such as "
            "max_model_len=4096; repeatable.",
        ),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            help="Write the records of this run to a new JSON Lines file.", rich_help_panel=OUTPUT
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Let --records replace a file.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object instead.", rich_help_panel=OUTPUT),
    ] = False,
    table: Annotated[
        bool,
        typer.Option("--table/--no-table", help="Print the token table.", rich_help_panel=OUTPUT),
    ] = True,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Show vLLM's log and tracebacks.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Continue prompts with vLLM, every token chosen by an entropy source.

    Ends with one summary line. Exits with 0 when every emitted token has exactly one record, with 1
    when not. The records also go to QR_LEDGER_DIR where that is set.
    """
    named = {
        "fixed_temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "temperature_strategy": strategy,
        "signal_amplifier_type": amplifier,
        "sample_count": sample_count,
    }
    variables = {"QR_ENTROPY_SOURCE_TYPE": source, "QR_FALLBACK_MODE": fallback}
    request = GenerationRequest(
        model=model,
        prompts=_all_prompts(prompts or [], prompt_file),
        max_tokens=max_tokens,
        options=_options(named, assignments or []),
        variables={name: value for name, value in variables.items() if value is not None},
        engine_arguments=engine_assignments(engine_args or []),
        verbose=verbose,
    )
    destination = None if records is None else RecordsFile(records, force=force)
    run = run_generation(request, records=destination)
    if as_json:
        print_json(run, records=records)
    else:
        print_texts(run, table=table)
    status = verdict(run, require_primary=require_primary)
    if not as_json:
        print_summary(run, records=records)
    if status is not ExitCode.OK:
        raise typer.Exit(status)


def _all_prompts(prompts: list[str], file: Path | None) -> tuple[str, ...]:
    """Returns the prompts of the command line, then the non-empty lines of the file."""
    lines = [] if file is None else _read(file).splitlines()
    every_prompt = (*prompts, *(line for line in lines if line.strip()))
    if not every_prompt:
        raise ConfigError("no prompt; give one on the command line or with --prompt-file")
    return every_prompt


def _read(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the prompts in {file}: {error}") from error


def _options(named: dict[str, Any], assignments: Iterable[str]) -> dict[str, str]:
    """Returns the per-request keys; values stay text, which the core reads and checks."""
    options = {KEY_PREFIX + name: str(value) for name, value in named.items() if value is not None}
    for key, value in pairs(assignments, "--set"):
        if not key.startswith(KEY_PREFIX):
            raise ConfigError(f"--set {key}={value}: keys begin with {KEY_PREFIX!r}")
        if key in options:
            raise ConfigError(f"--set {key}={value}: {key} is already set to {options[key]!r}")
        options[key] = value
    return options
