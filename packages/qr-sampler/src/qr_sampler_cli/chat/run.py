# SPDX-License-Identifier: Apache-2.0
"""A conversation from the first line to the judgement of its records."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import typer

from qr_sampler.admission.overrides import resolve_request
from qr_sampler_cli.chat.conversation import Conversation, Manner
from qr_sampler_cli.chat.input_lines import is_interactive, lines_of_user
from qr_sampler_cli.chat.reply import Reply
from qr_sampler_cli.chat.screen import Screen
from qr_sampler_cli.engines import Deployment, EngineChoice, choose_engine, deployed, load
from qr_sampler_cli.engines.failures import engine_failures
from qr_sampler_cli.engines.models import check_model
from qr_sampler_cli.engines.vllm import ORDINARY_FIELDS
from qr_sampler_cli.generation.ledger_reader import ledger_files, read_ledger
from qr_sampler_cli.generation.reconciliation import Emission
from qr_sampler_cli.generation.records_file import RecordsFile
from qr_sampler_cli.generation.run import (
    Completion,
    GenerationRequest,
    GenerationRun,
    check_options,
)

__all__ = ["run_chat"]


def run_chat(
    request: GenerationRequest, manner: Manner, *, records: RecordsFile | None = None
) -> GenerationRun:
    """Returns a conversation after it was held, as a run of which each reply is a completion.

    Args:
        request: Model, engine and deployment; it has no prompts.
        manner: How replies are made and shown.
        records: Receives a copy of the records, also when the conversation fails half-way.

    Raises:
        QRSamplerError: When an option, the source, the engine or its environment is at fault.
    """
    choice = choose_engine(request.engine, request.model)
    check_model(request.model, gguf=choice.name == "llama-cpp")
    with (
        contextlib.closing(Screen()) as screen,
        deployed(choice, request.model, request.variables, verbose=request.verbose) as deployment,
    ):
        check_options(deployment.settings, request.options)
        if choice.reason:
            typer.echo(f"engine: {choice.title}, {choice.reason}", err=True)
        return _run(request, manner, choice, deployment, screen, records)


def _run(
    request: GenerationRequest,
    manner: Manner,
    choice: EngineChoice,
    deployment: Deployment,
    screen: Screen,
    records: RecordsFile | None,
) -> GenerationRun:
    before = ledger_files(deployment.ledger_dir)
    replies: list[Reply] = []
    try:
        engine, interrupted = _hold(request, manner, choice, deployment, screen, replies)
    finally:
        keys = [reply.request_key for reply in replies]
        ledger = read_ledger(deployment.ledger_dir, keys, ignore=before)
        if records is not None:
            records.write(ledger)
    return GenerationRun(
        request=request,
        engine=engine,
        primary_source=resolve_request(
            deployment.settings, request.options, ORDINARY_FIELDS
        ).source,
        completions=_completions(replies),
        ledger=ledger,
        ended_early=interrupted,
    )


def _hold(
    request: GenerationRequest,
    manner: Manner,
    choice: EngineChoice,
    deployment: Deployment,
    screen: Screen,
    replies: list[Reply],
) -> tuple[str, bool]:
    """Returns the engine with its version and device, and whether a script was interrupted."""
    with (
        load(
            choice, request.model, deployment, request.engine_arguments, verbose=request.verbose
        ) as engine,
        engine_failures(f"{choice.title} failed while generating", verbose=request.verbose),
    ):
        interactive = is_interactive()
        conversation = Conversation(
            engine, deployment.settings, manner, screen, replies, interactive=interactive
        )
        if interactive:
            screen.remark(f"{choice.title} {engine.version} on {engine.device}; /help")
        interrupted = conversation.hold(lines_of_user(screen.in_front))
        return f"{choice.title} {engine.version} on {engine.device}", interrupted


def _completions(replies: Sequence[Reply]) -> tuple[Completion, ...]:
    """Returns the replies of which anything was shown; of others there must be no record."""
    return tuple(
        Completion(
            emission=Emission(request_key=reply.request_key, token_ids=tuple(reply.tokens)),
            prompt="",
            text=reply.text,
            token_texts=(),
            # A reply that the user has ended is as it should be.
            finish_reason="stop",
        )
        for reply in replies
        if reply.tokens
    )
