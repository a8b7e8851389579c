# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler tsd train``: a proposer learned from a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler.errors import ConfigError
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.generation.records_file import check_destination
from qr_sampler_cli.terminal.consoles import stdout_reserved
from qr_sampler_cli.terminal.progress import counting_bar, training_bar
from qr_sampler_cli.tsd.equipment import import_tsd
from qr_sampler_cli.tsd.learning import LONGEST_DRAFT, Bars, Kind, Learned, Recipe, learn
from qr_sampler_cli.tsd.teacher import Teacher

__all__ = ["train"]

_BARS: Final = Bars(
    counting=lambda description: counting_bar(description, unit="sequences"),
    training=training_bar,
)


@reports_errors
def train(
    model: Annotated[Path, typer.Argument(help="Directory of a Hugging Face model.")],
    output: Annotated[Path, typer.Argument(help="File to write, usually *.npz.")],
    kind: Annotated[
        Kind, typer.Option(help="bigram: a table by the last token; head: a small network.")
    ] = "head",
    k: Annotated[int, typer.Option("--K", "--k", min=1, help="Tokens of each payload.")] = 64,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Text that the model reads, UTF-8; without it the model's own samples."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to learn from.")] = 100_000,
    held_out: Annotated[int, typer.Option(min=8, help="Tokens to judge by.")] = 4096,
    temperature: Annotated[
        float, typer.Option(min=0.01, help="The temperature that the model will be sampled at.")
    ] = 0.7,
    context: Annotated[int, typer.Option(min=1, help="Tokens that a head looks back.")] = 3,
    width: Annotated[int, typer.Option(min=1, help="Hidden units of a head.")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the distillation of a head.")] = 2000,
    fine_tuning_steps: Annotated[
        int, typer.Option(min=0, help="Steps for acceptance after that.")
    ] = 1000,
    learning_rate: Annotated[
        float, typer.Option(min=1e-6, max=1.0, help="Of the distillation of a head.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Of samples, weights and order.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace OUTPUT if it exists.")] = False,
) -> None:
    """Learn a proposer from MODEL, judge it on text that it has not seen, and write OUTPUT.

    It learns the model's distributions, not only the tokens drawn from them; a head is then
    fine-tuned for the probability that its drafts are accepted.
    """
    if os.path.lexists(output) and not force:
        raise ConfigError(f"{output} exists: name another file, or replace it with --force")
    check_destination(output)
    recipe = Recipe(
        kind=kind,
        k=k,
        tokens=tokens,
        held_out=held_out,
        temperature=temperature,
        text=None if corpus is None else _text(corpus),
        context_tokens=context,
        width=width,
        steps=steps,
        fine_tuning_steps=fine_tuning_steps,
        learning_rate=learning_rate,
        seed=seed,
    )
    proposers = import_tsd("proposers")
    with stdout_reserved():
        learned = learn(Teacher(model), recipe, _BARS)
    _save(proposers.save_proposer, output, learned)
    for line in _report(output, recipe, learned):
        typer.echo(line)


def _text(corpus: Path) -> str:
    try:
        return corpus.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--corpus {corpus} cannot be read: {error}") from error


def _save(save: object, output: Path, learned: Learned) -> None:
    try:
        save(output, learned.proposer)  # type: ignore[operator]
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error}") from error


def _report(output: Path, recipe: Recipe, learned: Learned) -> list[str]:
    origin = "tokens of the model's own" if recipe.text is None else "tokens of the corpus"
    final, positions = learned.final, learned.final.overlaps.size
    summary = (
        f"{output}: {recipe.kind} for {learned.proposer.vocab_size:,} tokens, K = {recipe.k}, "
        f"{learned.size_bytes:,} bytes; learned from {learned.trained_tokens:,} {origin}"
    )
    lines = [
        summary,
        f"expected acceptance on {positions:,} held-out tokens: {final.acceptance:.4f}"
        + _before_fine_tuning(recipe, learned),
        f"cross-entropy gap: {final.gap_nats:.3f} nats",
    ]
    if recipe.text is None:
        lines.append(f"tokens per pass expected with L drafts: {_tokens_per_pass(learned)}")
    return lines


def _before_fine_tuning(recipe: Recipe, learned: Learned) -> str:
    if recipe.kind == "bigram" or not recipe.fine_tuning_steps:
        return ""
    return f" ({learned.distilled.acceptance:.4f} before fine-tuning)"


def _tokens_per_pass(learned: Learned) -> str:
    return ", ".join(
        f"L = {length}: {learned.final.tokens_per_pass(length, joint=True):.2f}"
        for length in range(1, LONGEST_DRAFT + 1)
    )
