# SPDX-License-Identifier: Apache-2.0
"""From a teacher to a proposer: training data, training, and evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from qr_sampler_cli.tsd.equipment import import_tsd
from qr_sampler_cli.tsd.teacher import TeacherError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qr_sampler_tsd.proposers import BigramProposer, HeadProposer
    from qr_sampler_tsd.train import Evaluation, Examples

__all__ = ["LONGEST_DRAFT", "Bars", "Kind", "Learned", "Model", "Recipe", "learn"]

SEQUENCE_TOKENS: Final = 256
KEPT_TOKENS: Final = 128
"""Tokens of each distribution that examples keep; the mass of the others is spread evenly."""
LOGITS_AT_ONCE: Final = 2**25
"""Most logits of a pass, 128 MiB, but at least those of one sequence."""
LONGEST_DRAFT: Final = 4
FINE_TUNING_RATE_SHARE: Final = 0.25

Kind = Literal["bigram", "head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a proposer is made."""

    kind: Kind
    """A table by the last token, or a learned head."""
    k: int
    """Tokens of each payload's head."""
    tokens: int
    """Tokens to learn from."""
    held_out: int
    """Tokens to evaluate on, which are not trained on."""
    temperature: float
    """The temperature at which the proposer will be used."""
    text: str | None
    """What the model reads; its own samples when ``None``."""
    context_tokens: int
    """Tokens that a head looks back."""
    width: int
    """Hidden units of a head."""
    steps: int
    """Optimiser steps of the distillation of a head."""
    fine_tuning_steps: int
    """Steps for acceptance after that."""
    learning_rate: float
    """Of the distillation."""
    seed: int
    """Of samples, first weights and order."""


class Learned(NamedTuple):
    """A proposer and its evaluation on held-out text."""

    proposer: BigramProposer | HeadProposer
    distilled: Evaluation
    """After distillation."""
    final: Evaluation
    """After fine-tuning; the same as :attr:`distilled` without it."""
    trained_tokens: int
    """Tokens that were learned from."""
    size_bytes: int
    """Memory of the proposer."""


class Model(Protocol):
    """What is learned from; :class:`~qr_sampler_cli.tsd.teacher.Teacher` is one."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""

    def encode(self, text: str) -> NDArray[np.int64]:
        """Returns the tokens of *text*."""

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the logits after each token of sequences, ``(B, N, V)`` for ``(B, N)``."""

    def sample(
        self,
        count: int,
        length: int,
        *,
        seed: int,
        temperature: float,
        progress: Callable[[int, int], None] | None,
    ) -> NDArray[np.int64]:
        """Returns sequences of the model's own."""


class Bars(NamedTuple):
    """How progress is shown: context managers that yield a function to report to."""

    counting: Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
    """For counts, ``report(done, total)``."""
    training: Callable[[str], AbstractContextManager[Callable[[int, int, float], None]]]
    """For optimisers, ``report(step, steps, loss)``."""


def learn(model: Model, recipe: Recipe, bars: Bars) -> Learned:
    """Returns the proposer that *recipe* makes of *model*.

    Raises:
        MissingPackageError: When qr-sampler-tsd is not installed.
        TeacherError: When the text is too short, or the payloads are larger than the vocabulary.
    """
    if recipe.k > model.vocab_size:
        raise TeacherError(
            f"K = {recipe.k} is more than the {model.vocab_size} tokens of the model"
        )
    train = import_tsd("train")
    learned_from, held_out = _material(model, recipe, bars)
    parts = list(_examples(model, recipe, learned_from, bars, train))
    if recipe.kind == "bigram":
        distiller = train.BigramDistiller(model.vocab_size, recipe.temperature)
        for part in parts:
            distiller.add(part)
        stages = [distiller.table(recipe.k)]
        size_bytes = stages[0].size_bytes
    else:
        stages = list(_heads(recipe, train.Examples.joined(parts), bars, train))
        size_bytes = stages[-1].weights.size_bytes
    judgements = [_judged(stage, model, recipe, held_out, bars, train) for stage in stages]
    return Learned(
        proposer=stages[-1],
        distilled=judgements[0],
        final=judgements[-1],
        trained_tokens=sum(map(len, parts)),
        size_bytes=size_bytes,
    )


def _heads(recipe: Recipe, examples: Examples, bars: Bars, train: Any) -> Iterator[HeadProposer]:
    """Yields the distilled head, and the fine-tuned one when there are steps for it."""
    head = import_tsd("proposers").HeadProposer
    rate = recipe.learning_rate
    settings = train.FitSettings(steps=recipe.steps, learning_rate=rate, seed=recipe.seed)
    with bars.training("distilling") as progress:
        weights = train.distil_head(
            examples,
            settings=settings,
            context_tokens=recipe.context_tokens,
            width=recipe.width,
            progress=progress,
        )
    yield head(weights, recipe.k, temperature=recipe.temperature)
    if not recipe.fine_tuning_steps:
        return
    settings = train.FitSettings(
        steps=recipe.fine_tuning_steps,
        learning_rate=rate * FINE_TUNING_RATE_SHARE,
        seed=recipe.seed + 1,
    )
    with bars.training("fine-tuning for acceptance") as progress:
        weights = train.fine_tune_acceptance(
            weights, examples, settings=settings, progress=progress
        )
    yield head(weights, recipe.k, temperature=recipe.temperature)


def _material(
    model: Model, recipe: Recipe, bars: Bars
) -> tuple[Sequence[NDArray[np.int64]], Sequence[NDArray[np.int64]]]:
    """Returns sequences to learn from and sequences to judge by."""
    length = min(SEQUENCE_TOKENS, model.longest - 1)
    if recipe.text is not None:
        return _windows(model.encode(recipe.text), recipe, length)
    counts = [-(-tokens // length) for tokens in (recipe.tokens, recipe.held_out)]
    with bars.counting("sampling the model") as progress:
        sequences = model.sample(
            sum(counts),
            length,
            seed=recipe.seed,
            temperature=recipe.temperature,
            progress=progress,
        )
    return list(sequences[: counts[0]]), list(sequences[counts[0] :])


def _windows(
    tokens: NDArray[np.int64], recipe: Recipe, length: int
) -> tuple[Sequence[NDArray[np.int64]], Sequence[NDArray[np.int64]]]:
    """Returns windows of a text: its end is what is held out."""
    if len(tokens) < 2 * recipe.held_out:
        raise TeacherError(
            f"the text has {len(tokens)} tokens; with {recipe.held_out} held out it needs at least "
            f"{2 * recipe.held_out}"
        )
    split = len(tokens) - recipe.held_out
    return tuple(  # type: ignore[return-value]
        [part[begin : begin + length] for begin in range(0, len(part), length)]
        for part in (tokens[:split][: recipe.tokens], tokens[split:])
    )


def _examples(
    model: Model,
    recipe: Recipe,
    sequences: Sequence[NDArray[np.int64]],
    bars: Bars,
    train: Any,
) -> Iterator[Examples]:
    with bars.counting("running the model") as progress:
        for done, (sequence, logits) in enumerate(_scored(model, sequences), start=1):
            yield train.Examples.from_logits(
                sequence,
                logits,
                context_tokens=recipe.context_tokens,
                kept=KEPT_TOKENS,
                temperature=recipe.temperature,
            )
            progress(done, len(sequences))


def _scored(
    model: Model, sequences: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yields each sequence with its logits; those of equal length share a pass of the model."""
    import numpy as np

    for length, alike in itertools.groupby(sequences, len):
        together = max(1, LOGITS_AT_ONCE // (length * model.vocab_size))
        while batch := list(itertools.islice(alike, together)):
            yield from zip(batch, model.logits(np.stack(batch)), strict=True)


def _judged(
    proposer: Any,
    model: Model,
    recipe: Recipe,
    sequences: Sequence[NDArray[np.int64]],
    bars: Bars,
    train: Any,
) -> Evaluation:
    """Evaluates a stage; the model runs again, since stored distributions would fill gigabytes."""
    softmax = import_tsd("proposers.head").softmax
    parts = []
    with bars.counting("judging") as progress:
        for sequence, logits in _scored(model, sequences):
            targets = softmax(logits.astype("float64") / recipe.temperature)
            parts.append(train.evaluate(proposer, sequence.tolist(), targets))
            progress(len(parts), len(sequences))
    evaluation: Evaluation = train.Evaluation.joined(parts)
    return evaluation
