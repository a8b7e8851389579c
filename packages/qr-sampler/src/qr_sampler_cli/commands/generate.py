# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler generate``: text from a model, every token with its record."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler.errors import ConfigError
from qr_sampler_cli.failures import ExitCode, reports_errors
from qr_sampler_cli.generation.records_file import RecordsFile
from qr_sampler_cli.generation.report import print_json, print_summary, print_texts, verdict
from qr_sampler_cli.generation.run import GenerationRequest, run_generation
from qr_sampler_cli.parsing.engine_options import EngineOptions
from qr_sampler_cli.parsing.option_groups import with_options
from qr_sampler_cli.parsing.sampling_options import SamplingOptions

__all__ = ["generate"]

OUTPUT: Final = "Output"


@reports_errors
@with_options(SamplingOptions, EngineOptions)
def generate(
    sampling: SamplingOptions,
    engine: EngineOptions,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="Texts to continue.")
    ] = None,
    *,
    prompt_file: Annotated[
        Path | None,
        typer.Option(help="File with one prompt per line; '-' reads standard input."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens per prompt.")] = 64,
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
) -> None:
    """Continue prompts with a model, every token chosen by an entropy source.

    Ends with one summary line. Exits with 0 when every emitted token has exactly one record, with 1
    when not. Ctrl-C ends it early: what there is, is shown and judged, and the status is 130. The
    records also go to QR_LEDGER_DIR where that is set.
    """
    request = GenerationRequest(
        model=engine.model,
        prompts=_all_prompts(prompts or [], prompt_file),
        max_tokens=max_tokens,
        options=sampling.options(),
        variables=sampling.variables(),
        engine=engine.engine,
        engine_arguments=engine.arguments(),
        verbose=engine.verbose,
    )
    destination = None if records is None else RecordsFile(records, force=force)
    run = run_generation(request, records=destination)
    if as_json:
        print_json(run, records=records)
    else:
        print_texts(run, table=table)
    status = verdict(run, require_primary=sampling.require_primary)
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
