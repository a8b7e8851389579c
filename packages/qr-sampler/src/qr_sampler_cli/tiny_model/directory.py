# SPDX-License-Identifier: Apache-2.0
"""The directory of the tiny model: created as a whole, reused, or left untouched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from qr_sampler.errors import QRSamplerError
from qr_sampler_cli.tiny_model.training import (
    ModelShape,
    Progress,
    TrainingRun,
    recipe_digest,
    train_into,
)

__all__ = [
    "DEFAULT_STEPS",
    "ForeignDirectoryError",
    "TinyModelSummary",
    "ensure_tiny_model",
    "train_tiny_model",
]

DEFAULT_STEPS: Final = 1000
"""About a minute on two cores."""

MARKER: Final = "qr_tiny_model.json"
"""Written last into a complete model directory; its presence means that the directory is ours."""


class ForeignDirectoryError(QRSamplerError, FileExistsError):
    """The directory holds something that this module did not write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModelSummary:
    """The model in a directory."""

    directory: Path
    """Where the model is, ready for ``vllm --model``."""
    parameters: int
    """Trained weights, the shared embedding counted once."""
    vocab_size: int
    """Tokens that the model knows."""
    corpus_tokens: int
    """Length of the training text in those tokens."""
    steps: int
    """Optimiser steps."""
    final_loss_nats: float
    """Mean cross entropy per token over the last steps, in nats."""
    training_s: float
    """Wall-clock seconds that the training took when it was done."""
    reused: bool
    """Whether the model already existed, so that nothing was trained."""


def ensure_tiny_model(
    directory: Path,
    *,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> TinyModelSummary:
    """Returns the model in *directory*, trained first unless the same one is already there.

    Args:
        directory: Directory of the model.
        steps: Optimiser steps, at least 1.
        seed: Seed of the initial weights and of the order of the text.
        progress: Called as ``progress(step, steps, loss_nats)`` after every step.

    Returns:
        A summary, with ``reused`` true when nothing was trained.

    Raises:
        ForeignDirectoryError: When *directory* holds anything but an earlier tiny model.
        MissingPackageError: When torch, transformers or tokenizers is needed and missing.
        ValueError: When *steps* is below 1.
    """
    existing = _read_marker(directory, recipe_digest(ModelShape(), steps=steps, seed=seed))
    if existing is not None:
        return existing
    return train_tiny_model(directory, steps=steps, seed=seed, progress=progress)


def train_tiny_model(
    directory: Path,
    *,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> TinyModelSummary:
    """Returns a summary of a model trained afresh into *directory*, replacing an earlier one.

    The model is a byte-level BPE and a two-layer Qwen2 network, trained on the CPU on the text
    that this package ships. The directory appears whole or not at all: an interrupted training
    leaves what was there before.

    Args:
        directory: Directory of the model; parents are created as needed.
        steps: Optimiser steps, at least 1; fewer train faster, but the text gets worse.
        seed: Seed of the initial weights and of the order of the text.
        progress: Called as ``progress(step, steps, loss_nats)`` after every step.

    Raises:
        ForeignDirectoryError: When *directory* holds anything but an earlier tiny model.
        MissingPackageError: When torch, transformers or tokenizers is missing.
        ValueError: When *steps* is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}: a model needs some training")
    _refuse_foreign(directory)
    shape = ModelShape()
    started = time.monotonic()
    with _replacing(directory) as workplace:
        run = train_into(workplace, shape, steps=steps, seed=seed, progress=progress)
        summary = _summary(directory, shape, run, steps=steps, since=started)
        _write_marker(workplace, summary, recipe_digest(shape, steps=steps, seed=seed))
    return summary


def _summary(
    directory: Path, shape: ModelShape, run: TrainingRun, *, steps: int, since: float
) -> TinyModelSummary:
    return TinyModelSummary(
        directory=directory,
        parameters=run.parameters,
        vocab_size=shape.vocab_size,
        corpus_tokens=run.corpus_tokens,
        steps=steps,
        final_loss_nats=run.final_loss_nats,
        training_s=time.monotonic() - since,
        reused=False,
    )


def _refuse_foreign(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ForeignDirectoryError(
            f"{directory} is a file: name a directory for the tiny model that does not exist yet"
        )
    if any(directory.iterdir()) and not (directory / MARKER).is_file():
        raise ForeignDirectoryError(
            f"{directory} is not empty and has no {MARKER}, so it is not a tiny model: "
            "name another directory, or remove this one yourself"
        )


@contextlib.contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """Yields a new directory that takes the place of *directory* when the block succeeds.

    Both are siblings, so that the last step is a rename within one file system.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    workplace = directory.parent / f".{directory.name}.{os.getpid()}.partial"
    shutil.rmtree(workplace, ignore_errors=True)
    workplace.mkdir()
    try:
        yield workplace
        _put_in_place(workplace, directory)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _put_in_place(workplace: Path, directory: Path) -> None:
    if not directory.exists():
        workplace.rename(directory)
        return
    old = workplace.with_suffix(".old")
    directory.rename(old)
    workplace.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _write_marker(workplace: Path, summary: TinyModelSummary, recipe: str) -> None:
    facts = asdict(summary)
    del facts["directory"], facts["reused"]
    text = json.dumps({"recipe": recipe, **facts}, indent=2, sort_keys=True)
    (workplace / MARKER).write_text(text + "\n", encoding="utf-8")


def _read_marker(directory: Path, recipe: str) -> TinyModelSummary | None:
    """Returns the summary of the model in *directory* if it was made by *recipe*, else None."""
    try:
        facts = json.loads((directory / MARKER).read_text(encoding="utf-8"))
        if facts.pop("recipe") != recipe:
            return None
        return TinyModelSummary(directory=directory, reused=True, **facts)
    # An unreadable marker only means that the model is trained again.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
