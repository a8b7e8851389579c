# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler tiny-model``: a small model that speaks words, trained on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.terminal.consoles import stdout_reserved
from qr_sampler_cli.terminal.progress import training_bar
from qr_sampler_cli.tiny_model.directory import (
    DEFAULT_STEPS,
    TinyModelSummary,
    ensure_tiny_model,
    train_tiny_model,
)
from qr_sampler_cli.tiny_model.gguf_file import write_gguf

__all__ = ["prepare_tiny_model", "tiny_model"]


@reports_errors
def tiny_model(
    directory: Annotated[Path, typer.Argument(help="Where the model is or shall be.")],
    steps: Annotated[
        int, typer.Option(min=1, help="Training steps; fewer train faster and speak worse.")
    ] = DEFAULT_STEPS,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the weights and of the order of the text.")
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Train again even if the model is there.")
    ] = False,
    gguf: Annotated[
        Path | None, typer.Option(help="Also write it into this file, for llama.cpp.")
    ] = None,
) -> None:
    """Train a small language model on the CPU, in about a minute, or reuse the one in DIRECTORY."""
    typer.echo(prepare_tiny_model(directory, steps=steps, seed=seed, force=force))
    if gguf is not None:
        typer.echo(f"{write_gguf(directory, gguf)}: the same model for llama.cpp")


def prepare_tiny_model(
    directory: Path, *, steps: int = DEFAULT_STEPS, seed: int = 0, force: bool = False
) -> str:
    """Returns one line about the resulting model in *directory*; shows the training's progress.

    Args:
        directory: Directory of the model.
        steps: Training steps.
        seed: Seed of the weights and of the order of the text.
        force: Train again even if the model is there.

    Raises:
        QRSamplerError: When the directory holds something else, or a package is missing.
    """
    make = train_tiny_model if force else ensure_tiny_model
    with stdout_reserved(), training_bar("training the tiny model") as progress:
        summary = make(directory, steps=steps, seed=seed, progress=progress)
    return _describe(summary)


def _describe(summary: TinyModelSummary) -> str:
    fate = "reused" if summary.reused else f"trained in {summary.training_s:.0f} s"
    return (
        f"{summary.directory}: {fate}; {summary.parameters:,} parameters, {summary.vocab_size:,} "
        f"tokens, loss {summary.final_loss_nats:.2f} nats per token"
    )
