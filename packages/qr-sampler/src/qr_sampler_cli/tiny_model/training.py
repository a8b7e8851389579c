# SPDX-License-Identifier: Apache-2.0
"""Trains a two-layer language model on the text that the package ships, on the CPU."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeAlias

from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import INSTALL_VLLM
from qr_sampler_cli.terminal.progress import no_progress_bars_of

__all__ = [
    "ModelShape",
    "Progress",
    "TrainingRun",
    "corpus_text",
    "recipe_digest",
    "train_into",
]

Progress: TypeAlias = Callable[[int, int, float], None]
"""Called as ``progress(step, steps, loss_nats)`` after every optimiser step, from 1 to *steps*."""

END_OF_TEXT: Final = "<|endoftext|>"

WINDOW_TOKENS: Final = 128
WINDOWS_PER_STEP: Final = 4

INITIAL_DEVIATION: Final = 0.1
"""Standard deviation of the first weights: the usual 0.02 is meant for far wider layers."""
MATRIX_LEARNING_RATE: Final = 0.02
"""Peak rate of Muon, which trains the matrices between embedding and output."""
OTHER_LEARNING_RATE: Final = 2e-3
"""Peak rate of AdamW, which trains the embedding, the norms and the biases."""
FINAL_LEARNING_RATE_SHARE: Final = 0.05
WARM_UP_STEPS: Final = 20
WEIGHT_DECAY: Final = 0.1
LARGEST_GRADIENT_NORM: Final = 1.0
LOSS_WINDOW_STEPS: Final = 20
"""The reported loss is a mean over this many final steps: a single step is noisy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes of the model; four heads of 32 suit every attention kernel and two-way splits."""

    vocab_size: int = 2048
    """Entries of the byte-level BPE, the end-of-text token included."""
    hidden_size: int = 128
    """Width of the residual stream."""
    intermediate_size: int = 512
    """Width of the feed-forward layers."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 4
    """Attention heads, all of them with their own keys and values."""
    context_tokens: int = 1024
    """Longest sequence that an engine accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The result of a training, apart from the files."""

    parameters: int
    """Trained weights, the shared embedding counted once."""
    corpus_tokens: int
    """Length of the corpus in tokens of the trained vocabulary."""
    final_loss_nats: float
    """Mean cross entropy per token over the last steps, in nats."""


@cache
def corpus_text() -> str:
    """Returns the shipped text with its paragraphs unwrapped.

    Line ends inside a paragraph belong to the file and not to the language, so they become
    spaces; paragraphs stay separated by an empty line.
    """
    wrapped = (files("qr_sampler_cli") / "corpus" / "opticks.txt").read_text(encoding="utf-8")
    return re.sub(r"(?<!\n)\n(?!\n)", " ", wrapped.strip())


def recipe_digest(shape: ModelShape, *, steps: int, seed: int) -> str:
    """Returns a hexadecimal digest of everything that determines the trained model.

    Args:
        shape: Sizes of the model.
        steps: Optimiser steps.
        seed: Seed of the initial weights and of the order of the text.
    """
    recipe = {
        "corpus": hashlib.sha256(corpus_text().encode()).hexdigest(),
        "shape": asdict(shape),
        "steps": steps,
        "seed": seed,
        "batch": [WINDOWS_PER_STEP, WINDOW_TOKENS],
        "initial_deviation": INITIAL_DEVIATION,
        "learning_rates": [MATRIX_LEARNING_RATE, OTHER_LEARNING_RATE],
        "schedule": [FINAL_LEARNING_RATE_SHARE, WARM_UP_STEPS],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def train_into(
    directory: Path, shape: ModelShape, *, steps: int, seed: int, progress: Progress | None
) -> TrainingRun:
    """Trains a tokenizer and a model and writes both into *directory*.

    Args:
        directory: An existing, empty directory.
        shape: Sizes of the model.
        steps: Optimiser steps, at least 1.
        seed: Seed of the initial weights and of the order of the text.
        progress: Told about every step.

    Returns:
        The size and the loss of the result.

    Raises:
        MissingPackageError: When torch, transformers or tokenizers is not installed.
    """
    torch = _library("torch")
    tokenizer = _trained_tokenizer(shape)
    tokens = torch.tensor(tokenizer.encode(corpus_text()).ids)
    with _reproducible(torch, seed):
        model = _new_model(shape, end_of_text=tokenizer.token_to_id(END_OF_TEXT))
        loss = _optimise(model, tokens, steps=steps, progress=progress)
    _save(directory, model, tokenizer, shape)
    return TrainingRun(
        parameters=sum(weights.numel() for weights in model.parameters()),
        corpus_tokens=len(tokens),
        final_loss_nats=loss,
    )


@contextlib.contextmanager
def _reproducible(torch: Any, seed: int) -> Iterator[None]:
    """Seeds torch and keeps it to one thread; both are restored afterwards.

    One thread adds in the same order however many cores there are. It also costs little: layers
    this small leave more threads waiting for each other, and where cores are shared with other
    processes that waiting takes longer than the work.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _library(name: str) -> Any:
    return import_package(name, needed_for="training the tiny model", remedy=INSTALL_VLLM)


def _trained_tokenizer(shape: ModelShape) -> Any:
    tokenizers = _library("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=shape.vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([corpus_text()], trainer=trainer)
    return tokenizer


def _new_model(shape: ModelShape, *, end_of_text: int) -> Any:
    transformers = _library("transformers")
    config = transformers.Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context_tokens,
        initializer_range=INITIAL_DEVIATION,
        tie_word_embeddings=True,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
    )
    return transformers.Qwen2ForCausalLM(config)


def _optimise(model: Any, tokens: Any, *, steps: int, progress: Progress | None) -> float:
    torch = _library("torch")
    optimisers = _optimisers(torch, model)
    rates = [
        torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate_share(step, steps))
        for optimiser in optimisers
    ]
    model.train()
    losses: list[float] = []
    for step in range(1, steps + 1):
        windows = _random_windows(torch, tokens)
        loss = model(input_ids=windows, labels=windows, use_cache=False).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT_NORM)
        for stepping in (*optimisers, *rates):
            stepping.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            progress(step, steps, losses[-1])
    last = losses[-LOSS_WINDOW_STEPS:]
    return sum(last) / len(last)


def _optimisers(torch: Any, model: Any) -> tuple[Any, Any]:
    """Returns Muon for the inner matrices and AdamW for the rest.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) reaches a clearly lower
    loss than AdamW alone within the minute that there is.
    """
    matrices: list[Any] = []
    others: list[Any] = []
    for name, weights in model.named_parameters():
        inner = weights.ndim == 2 and "embed" not in name
        (matrices if inner else others).append(weights)
    return (
        torch.optim.Muon(matrices, lr=MATRIX_LEARNING_RATE, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW(
            others, lr=OTHER_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY
        ),
    )


def _random_windows(torch: Any, tokens: Any) -> Any:
    """Returns token ids of shape ``(WINDOWS_PER_STEP, WINDOW_TOKENS)``."""
    starts = torch.randint(len(tokens) - WINDOW_TOKENS + 1, (WINDOWS_PER_STEP, 1))
    return tokens[starts + torch.arange(WINDOW_TOKENS)]


def _rate_share(step: int, steps: int) -> float:
    """Returns the share of the peak learning rate at *step*: a linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    fall = 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return rise * (FINAL_LEARNING_RATE_SHARE + (1.0 - FINAL_LEARNING_RATE_SHARE) * fall)


def _save(directory: Path, model: Any, tokenizer: Any, shape: ModelShape) -> None:
    transformers = _library("transformers")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=shape.context_tokens,
    )
    fast.save_pretrained(directory)
    with no_progress_bars_of(transformers.utils.logging):
        model.save_pretrained(directory)
