# SPDX-License-Identifier: Apache-2.0
"""What a run looks like to its user: text, tables, one summary line, an exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import typer
from rich.text import Text

from qr_sampler_cli.failures import ExitCode
from qr_sampler_cli.generation.ledger_reader import EMITTED_KINDS
from qr_sampler_cli.generation.run import Completion, GenerationRun
from qr_sampler_cli.generation.token_table import token_table
from qr_sampler_cli.terminal.consoles import printable, result_console

__all__ = ["print_json", "print_summary", "print_texts", "verdict"]

SHOWN_DISCREPANCIES: Final = 20
SHOWN_REASONS: Final = 5


def print_texts(run: GenerationRun, *, table: bool) -> None:
    """Prints prompts with their continuations and token tables.

    Args:
        run: The run.
        table: Whether to print the token tables.
    """
    console = result_console()
    of_request = run.ledger.by_request()
    for completion in run.completions:
        console.print(_passage(completion), soft_wrap=True)
        console.print()
        if table:
            ids = completion.emission.token_ids
            key = completion.emission.request_key
            table_of_tokens = token_table(
                ids,
                completion.token_texts,
                of_request.get(key, ()),
                without_entropy=run.ledger.without_entropy(key),
                fancy=console.is_terminal,
            )
            console.print(table_of_tokens)
            console.print()


def print_summary(run: GenerationRun, *, records: Path | None) -> None:
    """Prints where the records are and, last, the summary line.

    Args:
        run: The run.
        records: Where its records were written, if anywhere.
    """
    console = result_console()
    if records is not None:
        console.print(printable(f"records: {records}"), soft_wrap=True)
    console.print(printable(run.summary.line()), soft_wrap=True)


def _passage(completion: Completion) -> Text:
    return Text.assemble(
        (printable(completion.prompt), "dim"), (printable(completion.text), "bold")
    )


def print_json(run: GenerationRun, *, records: Path | None) -> None:
    """Prints the run as one JSON object: completions, the record of each token, the summary.

    Args:
        run: The run.
        records: Where its records were written, if anywhere.
    """
    summary = run.summary
    document = {
        "model": run.request.model,
        "engine": run.engine,
        "completions": [_completion(run, completion) for completion in run.completions],
        "discards": run.ledger.count("discard"),
        "discrepancies": list(run.discrepancies),
        "records": None if records is None else str(records),
        "summary": {
            "tokens": summary.tokens,
            "primary_source": summary.primary_source,
            "primary_tokens": summary.primary_tokens,
            "fallback_tokens": summary.fallback_tokens,
            "mean_u": summary.mean_u,
            "median_draw_ms": summary.median_draw_ms,
        },
    }
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def _completion(run: GenerationRun, completion: Completion) -> dict[str, Any]:
    key = completion.emission.request_key
    records = {
        line.values["position"]: line.values
        for line in run.ledger.lines
        if line.kind in EMITTED_KINDS and line.request_key == key
    }
    tokens = zip(completion.emission.token_ids, completion.token_texts, strict=True)
    return {
        "request_key": key,
        "prompt": completion.prompt,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": [
            {"token_id": token_id, "text": text, "record": records.get(position)}
            for position, (token_id, text) in enumerate(tokens)
        ],
    }


def verdict(run: GenerationRun, *, require_primary: bool) -> ExitCode:
    """Returns the exit status of a run, after saying on standard error what is wrong with it.

    Args:
        run: The run.
        require_primary: Whether a token from any other source than the configured one is a failure.
    """
    if torn := run.ledger.unreadable:
        typer.echo(f"left out of the ledger, as no record: {printable(', '.join(torn))}", err=True)
    if run.discrepancies:
        for finding in run.discrepancies[:SHOWN_DISCREPANCIES]:
            typer.echo(f"mismatch: {printable(finding)}", err=True)
        rest = len(run.discrepancies) - SHOWN_DISCREPANCIES
        if rest > 0:
            typer.echo(f"mismatch: and {rest} more", err=True)
        typer.echo("error: the records do not account for the emitted tokens", err=True)
        return ExitCode.MISMATCH
    summary = run.summary
    if require_primary and not summary.all_primary:
        typer.echo(
            f"error: {summary.tokens - summary.primary_tokens} of {summary.tokens} tokens did not "
            f"come from {summary.primary_source}:",
            err=True,
        )
        for reason, count in run.ledger.why_not(summary.primary_source).most_common(SHOWN_REASONS):
            typer.echo(f"  {count} because {printable(reason)}", err=True)
        return ExitCode.FALLBACK
    return ExitCode.INTERRUPTED if run.interrupted else ExitCode.OK
