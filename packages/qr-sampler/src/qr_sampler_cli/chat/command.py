# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler chat``: a conversation, every token of the replies with its record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler_cli.chat.conversation import Manner
from qr_sampler_cli.chat.run import run_chat
from qr_sampler_cli.chat.shading import Shade
from qr_sampler_cli.chat.templates import chat_template
from qr_sampler_cli.failures import ExitCode, reports_errors
from qr_sampler_cli.generation.records_file import RecordsFile
from qr_sampler_cli.generation.report import print_summary, verdict
from qr_sampler_cli.generation.run import GenerationRequest
from qr_sampler_cli.parsing.engine_options import EngineOptions
from qr_sampler_cli.parsing.option_groups import with_options
from qr_sampler_cli.parsing.sampling_options import SamplingOptions

__all__ = ["chat"]

OUTPUT: Final = "Output"


@reports_errors
@with_options(SamplingOptions, EngineOptions)
def chat(
    sampling: SamplingOptions,
    engine: EngineOptions,
    *,
    system: Annotated[
        str | None, typer.Option(help="What the model is told before the conversation.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="plain|FILE",
            help="Write the conversation out as text, or by a Jinja template, instead of by the "
            "model's own template.",
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens per reply.")] = 512,
    shade: Annotated[
        Shade,
        typer.Option(
            help="Shade the background of each token by u, from dark (0) to light (1).",
            rich_help_panel=OUTPUT,
        ),
    ] = Shade.NONE,
    records: Annotated[
        Path | None,
        typer.Option(
            help="Write the records of the conversation to a new JSON Lines file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Let --records replace a file.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Talk with a model in the terminal, every token chosen by an entropy source.

    Ctrl-C ends a reply, at the prompt the conversation, as do /quit and Ctrl-D; /help lists what
    else can be typed. Each line of a pipe or a file is a message.

    Ends with one summary line. Exits with 0 when every token that was shown has exactly one record,
    with 1 when not, and with 130 when Ctrl-C has ended a script. The records also go to
    QR_LEDGER_DIR where that is set.
    """
    request = GenerationRequest(
        model=engine.model,
        prompts=(),
        max_tokens=max_tokens,
        options=sampling.options(),
        variables=sampling.variables(),
        engine=engine.engine,
        engine_arguments=engine.arguments(),
        verbose=engine.verbose,
    )
    manner = Manner(
        template=chat_template(template),
        system=system,
        max_tokens=max_tokens,
        options=sampling.options(),
        shade=shade,
    )
    destination = None if records is None else RecordsFile(records, force=force)
    run = run_chat(request, manner, records=destination)
    # Without a token there is nothing to judge.
    judged = sampling.require_primary and bool(run.completions)
    status = verdict(run, require_primary=judged)
    print_summary(run, records=records)
    if status is not ExitCode.OK:
        raise typer.Exit(status)
