# SPDX-License-Identifier: Apache-2.0
"""Options that say what computes the logits, the same for every command that generates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from qr_sampler_cli.engines.choice import EngineName
from qr_sampler_cli.parsing.assignments import engine_assignments

__all__ = ["EngineOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Model and engine; see :func:`~qr_sampler_cli.parsing.option_groups.with_options`."""

    model: Annotated[
        str,
        typer.Option(
            help="Model: a directory or a name on the model hub; for llama.cpp a .gguf file."
        ),
    ]
    """Path or name of the model."""
    engine: Annotated[
        EngineName,
        typer.Option(
            help="What computes the logits. 'auto' is vLLM where it is installed with our plugin, "
            "else what is installed: Transformers before MLX, on Apple silicon the other way "
            "round, and llama.cpp for .gguf files."
        ),
    ] = EngineName.AUTO
    """The engine, or how to choose it."""
    engine_args: Annotated[
        list[str] | None,
        typer.Option(
            "--engine-arg",
            metavar="KEY=VALUE",
            help="Argument of the engine, its value as JSON or text, such as max_model_len=4096 "
            "for vLLM; repeatable.",
        ),
    ] = None
    """Further arguments of the engine, each as ``KEY=VALUE``."""
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the engine's log and tracebacks.")
    ] = False
    """Whether the engine's log is shown."""

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the engine.

        Raises:
            ConfigError: When one is malformed.
        """
        return engine_assignments(self.engine_args or [])
