# SPDX-License-Identifier: Apache-2.0
"""One run: prompts through an engine, tokens and their records out."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import typer

from qr_sampler.admission.overrides import resolve_request
from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler_cli.engines import (
    Deployment,
    EngineChoice,
    EngineName,
    choose_engine,
    deployed,
    load,
)
from qr_sampler_cli.engines.failures import engine_failures
from qr_sampler_cli.engines.models import check_model
from qr_sampler_cli.engines.vllm import ORDINARY_FIELDS
from qr_sampler_cli.generation.ledger_reader import Ledger, ledger_files, read_ledger
from qr_sampler_cli.generation.reconciliation import (
    Emission,
    RunSummary,
    find_discrepancies,
    summarize,
)
from qr_sampler_cli.generation.recorded_tokens import RecordedTokens
from qr_sampler_cli.generation.records_file import RecordsFile
from qr_sampler_cli.terminal.progress import stage
from qr_sampler_local.engines import Generated, LocalEngine, continuation

__all__ = [
    "Completion",
    "GenerationRequest",
    "GenerationRun",
    "check_options",
    "run_generation",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to generate."""

    model: str
    """Name or path of the model."""
    prompts: tuple[str, ...]
    """The prompts, generated from together."""
    max_tokens: int
    """Largest number of tokens per prompt."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The ``qr_*`` keys of every prompt."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the deployment."""
    engine_arguments: Mapping[str, Any] = field(default_factory=dict)
    """The engine's own arguments."""
    engine: EngineName = EngineName.AUTO
    """What computes the logits."""
    verbose: bool = False
    """Whether the engine's log is shown."""

    def request_keys(self) -> tuple[str, ...]:
        """Returns one request key per prompt: the user's, numbered if there are several prompts."""
        name = self.options.get("qr_request_key")
        if name is not None and len(self.prompts) == 1:
            return (name,)
        stem = name if name is not None else f"cli-{uuid.uuid4().hex[:12]}"
        return tuple(f"{stem}-{index}" for index in range(len(self.prompts)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the engine emitted for one prompt."""

    emission: Emission
    """The emitted tokens."""
    prompt: str
    """The prompt."""
    text: str
    """The text that they add to the prompt."""
    token_texts: tuple[str, ...]
    """The text of each token."""
    finish_reason: str
    """Why generation ended: ``stop``, ``length`` or ``interrupted``."""


@dataclass(frozen=True, kw_only=True)
class GenerationRun:
    """A finished run. Without slots, because its judgements are computed once, on demand."""

    request: GenerationRequest
    """What was asked for."""
    engine: str
    """The engine, with its version and what it has computed on."""
    primary_source: str
    """Name of the configured source."""
    completions: tuple[Completion, ...]
    """What the engine emitted, in the order of the prompts."""
    ledger: Ledger
    """What was recorded."""
    ended_early: bool = False
    """Whether the user has ended it before all was asked for."""

    @cached_property
    def emissions(self) -> tuple[Emission, ...]:
        """The emitted tokens of all prompts."""
        return tuple(completion.emission for completion in self.completions)

    @property
    def interrupted(self) -> bool:
        """Whether the user has ended it."""
        return self.ended_early or any(
            each.finish_reason == "interrupted" for each in self.completions
        )

    @cached_property
    def discrepancies(self) -> tuple[str, ...]:
        """Every way in which records and tokens differ."""
        return find_discrepancies(self.emissions, self.ledger)

    @cached_property
    def summary(self) -> RunSummary:
        """The run in numbers."""
        return summarize(self.emissions, self.ledger, primary_source=self.primary_source)


def run_generation(
    request: GenerationRequest, *, records: RecordsFile | None = None
) -> GenerationRun:
    """Returns the outcome of one run of an engine in this process.

    What can be checked without the engine is checked first, because an engine takes a while to
    start. Which engine it is goes to standard error where the user has not named one.

    Args:
        request: What to generate.
        records: Receives a copy of the records, also when generation fails half-way.

    Raises:
        QRSamplerError: When an option, the source, the engine or its environment is at fault.
    """
    choice = choose_engine(request.engine, request.model)
    check_model(request.model, gguf=choice.name == "llama-cpp")
    with deployed(choice, request.model, request.variables, verbose=request.verbose) as deployment:
        check_options(deployment.settings, request.options)
        if choice.reason:
            typer.echo(f"engine: {choice.title}, {choice.reason}", err=True)
        return _run(request, choice, deployment, records)


def check_options(settings: Settings, given: Mapping[str, str]) -> None:
    """Checks the options of a request.

    Args:
        settings: The deployment's settings.
        given: The ``qr_*`` options.

    Raises:
        ConfigError: When one is unknown, out of range, or has no effect.
        PluginError: When a component that one names is unknown, contested or broken.
    """
    strategy = resolve_request(settings, given, ORDINARY_FIELDS).parameters.temperature_strategy
    if "qr_fixed_temperature" in given and strategy != "fixed":
        raise ConfigError(
            f"a fixed temperature has no effect on the temperature strategy {strategy!r}; remove "
            "it, or set the strategy's own options with --set"
        )


def _run(
    request: GenerationRequest,
    choice: EngineChoice,
    deployment: Deployment,
    records: RecordsFile | None,
) -> GenerationRun:
    keys = request.request_keys()
    directory = deployment.ledger_dir
    before = ledger_files(directory)
    recorded = RecordedTokens(directory, ignore=before)
    try:
        engine, completions = _generate(request, choice, deployment, keys, recorded)
    finally:
        ledger = read_ledger(directory, keys, ignore=before)
        if records is not None:
            records.write(ledger)
    resolved = resolve_request(deployment.settings, request.options, ORDINARY_FIELDS)
    return GenerationRun(
        request=request,
        engine=engine,
        primary_source=resolved.source,
        completions=completions,
        ledger=ledger,
    )


def _generate(
    request: GenerationRequest,
    choice: EngineChoice,
    deployment: Deployment,
    keys: tuple[str, ...],
    recorded: RecordedTokens,
) -> tuple[str, tuple[Completion, ...]]:
    """Returns the engine with its version and device, and what it has emitted."""
    options = [{**request.options, "qr_request_key": key} for key in keys]
    with (
        load(
            choice,
            request.model,
            deployment,
            request.engine_arguments,
            verbose=request.verbose,
        ) as engine,
        engine_failures(f"{choice.title} failed while generating", verbose=request.verbose),
        stage("generating", count=recorded, unit="tokens recorded"),
    ):
        prompts = [engine.encode(prompt) for prompt in request.prompts]
        generated = engine.generate(prompts, max_tokens=request.max_tokens, options=options)
        completions = tuple(
            _completion(engine, prompt, tokens, result)
            for prompt, tokens, result in zip(request.prompts, prompts, generated, strict=True)
        )
        return f"{choice.title} {engine.version} on {engine.device}", completions


def _completion(
    engine: LocalEngine, prompt: str, prompt_tokens: list[int], generated: Generated
) -> Completion:
    return Completion(
        emission=Emission(
            request_key=generated.request_key,
            token_ids=generated.tokens,
            interrupted=generated.finish_reason == "interrupted",
        ),
        prompt=prompt,
        text=continuation(engine, prompt_tokens, generated.tokens),
        token_texts=tuple(map(engine.spell, generated.tokens)),
        finish_reason=generated.finish_reason,
    )
