# SPDX-License-Identifier: Apache-2.0
"""One run: prompts through real vLLM, tokens and their records out."""

from __future__ import annotations

import contextlib
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from qr_sampler.admission.component_checks import check_components
from qr_sampler.admission.overrides import resolve_request
from qr_sampler.components.failure_policy import configured_source
from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler_cli.environment import engine_defaults, environment
from qr_sampler_cli.generation.engine import (
    ORDINARY_FIELDS,
    Engine,
    engine_failures,
    require_plugin,
)
from qr_sampler_cli.generation.ledger_reader import Ledger, ledger_files, read_ledger
from qr_sampler_cli.generation.reconciliation import (
    Emission,
    RunSummary,
    find_discrepancies,
    summarize,
)
from qr_sampler_cli.generation.recorded_tokens import RecordedTokens
from qr_sampler_cli.generation.records_file import RecordsFile
from qr_sampler_cli.terminal.consoles import stdout_reserved
from qr_sampler_cli.terminal.progress import stage

__all__ = ["Completion", "GenerationRequest", "GenerationRun", "run_generation"]


MODEL_FILES: Final = ("config.json", "params.json")
"""What describes a model in its directory: that of Hugging Face, or Mistral's."""
HUB_NAME: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:\w[\w.-]*)?")
"""A name on the model hub, with the quantisation that vLLM may be told behind a colon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to generate."""

    model: str
    """Name or directory of the model."""
    prompts: tuple[str, ...]
    """The prompts, generated from together."""
    max_tokens: int
    """Largest number of tokens per prompt."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The ``qr_*`` keys of every prompt."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the deployment."""
    engine_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of vLLM's engine."""
    verbose: bool = False
    """Whether vLLM's log is shown."""

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
    """The text as vLLM put it together."""
    token_texts: tuple[str, ...]
    """The text of each token."""
    finish_reason: str
    """Why generation ended, in vLLM's words."""


@dataclass(frozen=True, kw_only=True)
class GenerationRun:
    """A finished run. Without slots, because its judgements are computed once, on demand."""

    request: GenerationRequest
    """What was asked for."""
    primary_source: str
    """Name of the configured source."""
    completions: tuple[Completion, ...]
    """What the engine emitted, in the order of the prompts."""
    ledger: Ledger
    """What the plugin recorded."""

    @cached_property
    def emissions(self) -> tuple[Emission, ...]:
        """The emitted tokens of all prompts."""
        return tuple(completion.emission for completion in self.completions)

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
    """Returns the outcome of one run of vLLM in this process.

    What can be checked without the engine is checked first, because an engine takes a while to
    start.

    Args:
        request: What to generate.
        records: Receives a copy of the records, also when generation fails half-way.

    Raises:
        QRSamplerError: When an option, the source, the engine or its environment is at fault.
    """
    check_model(request.model)
    defaults = engine_defaults(request.model, verbose=request.verbose)
    with environment(request.variables, defaults=defaults), stdout_reserved():
        settings = _checked_settings(request)
        require_plugin()
        with _ledger_directory(settings) as directory:
            return _run(request, settings, directory, records)


def check_model(model: str) -> None:
    """Refuses a path at which there is no model, which vLLM would look for on the model hub.

    Args:
        model: A path, or a name on the hub: ``name`` or ``owner/name``.

    Raises:
        ConfigError: When it can only be a path and there is nothing, or no model, there.
    """
    path = Path(model).expanduser()
    if path.is_dir() and not any((path / name).is_file() for name in MODEL_FILES):
        raise ConfigError(
            f"--model {model}: the directory holds none of {', '.join(MODEL_FILES)}, so it is no "
            "model; name the directory that does"
        )
    if not path.exists() and not HUB_NAME.fullmatch(model) and "://" not in model:
        raise ConfigError(
            f"--model {model}: there is no such directory; correct the path, or make a small model "
            "there with: qr-sampler tiny-model"
        )


def _checked_settings(request: GenerationRequest) -> Settings:
    settings = Settings.load()
    # As the plugin does when it starts; a request's own components are checked with the request.
    check_components(settings, settings, prefix="QR_")
    options = resolve_request(settings, request.options, ORDINARY_FIELDS)
    strategy = options.parameters.temperature_strategy
    if "qr_fixed_temperature" in request.options and strategy != "fixed":
        raise ConfigError(
            f"a fixed temperature has no effect on the temperature strategy {strategy!r}; remove "
            "it, or set the strategy's own options with --set"
        )
    configured_source(settings).close()
    return settings


@contextlib.contextmanager
def _ledger_directory(settings: Settings) -> Iterator[Path]:
    """Yields the user's ledger directory, or a private one that lives as long as the run."""
    if settings.ledger_dir is not None:
        yield settings.ledger_dir
        return
    with (
        tempfile.TemporaryDirectory(prefix="qr-sampler-") as private,
        environment({"QR_LEDGER_DIR": private}),
    ):
        yield Path(private)


def _run(
    request: GenerationRequest,
    settings: Settings,
    directory: Path,
    records: RecordsFile | None,
) -> GenerationRun:
    keys = request.request_keys()
    before = ledger_files(directory)
    try:
        completions = _generate(request, keys, RecordedTokens(directory, ignore=before))
    finally:
        ledger = read_ledger(directory, keys, ignore=before)
        if records is not None:
            records.write(ledger)
    return GenerationRun(
        request=request,
        primary_source=resolve_request(settings, request.options, ORDINARY_FIELDS).source,
        completions=completions,
        ledger=ledger,
    )


def _generate(
    request: GenerationRequest, keys: tuple[str, ...], recorded: RecordedTokens
) -> tuple[Completion, ...]:
    options = [{**request.options, "qr_request_key": key} for key in keys]
    with (
        stage(f"starting vLLM with {request.model}"),
        engine_failures(
            f"vLLM did not start with {_with_origin(request.model)}", verbose=request.verbose
        ),
    ):
        engine = Engine(request.model, request.engine_arguments)
    with (
        engine_failures("vLLM failed while generating", verbose=request.verbose),
        contextlib.closing(engine),
        stage("generating", count=recorded, unit="tokens recorded"),
    ):
        outputs = engine.complete(request.prompts, options, max_tokens=request.max_tokens)
        return tuple(
            _completion(engine, key, prompt, output)
            for key, prompt, output in zip(keys, request.prompts, outputs, strict=True)
        )


def _with_origin(model: str) -> str:
    if Path(model).exists():
        return model
    return f"{model} (sought on the model hub, since no directory here has that name)"


def _completion(engine: Engine, key: str, prompt: str, output: Any) -> Completion:
    token_ids = tuple(int(token_id) for token_id in output.token_ids)
    return Completion(
        emission=Emission(request_key=key, token_ids=token_ids),
        prompt=prompt,
        text=output.text,
        token_texts=engine.token_texts(token_ids),
        finish_reason=str(output.finish_reason),
    )
