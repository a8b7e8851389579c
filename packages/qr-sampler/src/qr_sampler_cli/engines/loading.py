# SPDX-License-Identifier: Apache-2.0
"""Engines for one command: their environment, their records, their beginning and their end."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from qr_sampler.admission.component_checks import check_components
from qr_sampler.components.failure_policy import configured_source
from qr_sampler.settings import Settings
from qr_sampler_cli.engines.choice import VLLM, EngineChoice
from qr_sampler_cli.engines.failures import engine_failures
from qr_sampler_cli.engines.models import with_origin
from qr_sampler_cli.engines.vllm import VllmEngine
from qr_sampler_cli.environment import engine_defaults, environment
from qr_sampler_cli.terminal.consoles import stdout_reserved
from qr_sampler_cli.terminal.progress import no_progress_bars_of, stage
from qr_sampler_local.engines import LocalEngine, load_engine

__all__ = ["Deployment", "deployed", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What applies to all requests of a command."""

    settings: Settings
    """The settings, checked; they name the directory of the records."""
    ledger_dir: Path
    """Where the records are: the user's directory, or one that lives as long as the block."""


@contextlib.contextmanager
def deployed(
    choice: EngineChoice, model: str, variables: Mapping[str, str], *, verbose: bool = False
) -> Iterator[Deployment]:
    """Prepares this process for an engine: its environment, and a place for the records.

    What an engine prints goes to standard error while the block runs.

    Args:
        choice: The engine.
        model: Path or name of the model.
        variables: Environment variables of the deployment, which precede those of the process.
        verbose: Whether the engine's log is shown.

    Raises:
        ConfigError: When a setting is invalid.
        PluginError: When a component that the settings name is unknown, contested or broken.
    """
    defaults = engine_defaults(model, verbose=verbose)
    with environment(variables, defaults=defaults), stdout_reserved():
        settings = Settings.load()
        # As the plugin does when it starts; a request's own components are checked with it.
        check_components(settings, settings, prefix="QR_")
        configured_source(settings).close()
        with _ledger_directory(settings) as directory:
            yield Deployment(settings=Settings.load(), ledger_dir=directory)


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


@contextlib.contextmanager
def load(
    choice: EngineChoice,
    model: str,
    deployment: Deployment,
    arguments: Mapping[str, Any] | None = None,
    *,
    verbose: bool = False,
) -> Iterator[LocalEngine]:
    """Yields an engine with its model loaded, and closes it.

    Args:
        choice: The engine.
        model: Path or name of the model.
        deployment: What :func:`deployed` has yielded.
        arguments: The engine's own arguments, by name.
        verbose: Whether the traceback of a failure is shown.

    Raises:
        EngineError: When it does not start.
        QRSamplerError: When it is not installed, or refuses a setting or an argument.
    """
    with (
        stage(f"starting {choice.title} with {model}"),
        engine_failures(f"{choice.title} did not start with {with_origin(model)}", verbose=verbose),
        _no_bars(choice, model),
    ):
        engine = _made(choice, model, deployment, arguments or {})
    with contextlib.closing(engine):
        yield engine


@contextlib.contextmanager
def _no_bars(choice: EngineChoice, model: str) -> Iterator[None]:
    """Keeps bars from breaking the line that shows the progress, unless something is downloaded."""
    if choice.name != "transformers" or not Path(model).exists():
        yield
        return
    with no_progress_bars_of(import_module("transformers.utils.logging")):
        yield


def _made(
    choice: EngineChoice, model: str, deployment: Deployment, arguments: Mapping[str, Any]
) -> LocalEngine:
    if choice.name != VLLM:
        return load_engine(choice.name, model, deployment.settings, arguments=arguments)
    return VllmEngine(model, arguments, ledger_dir=deployment.ledger_dir)
