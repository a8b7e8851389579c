# SPDX-License-Identifier: Apache-2.0
"""M1, the target with context: bigrams P(next | previous) as a table."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import TargetError
from qr_sampler_tsd.targets.synthetic import SyntheticBigram

__all__ = [
    "BigramTable",
    "CorpusBigram",
    "Vocabulary",
    "build_vocab_from_corpus",
    "make_bigram_from_corpus",
    "make_bigram_synthetic",
    "row_logprobs",
]


class Vocabulary(NamedTuple):
    """Characters and their ids."""

    stoi: dict[str, int]
    """Id of each character."""
    itos: tuple[str, ...]
    """Character of each id, ascending."""


class CorpusBigram(NamedTuple):
    """What a text says about the next character."""

    p: FloatArray
    """Shape ``(V, V)``: row x is P(. | x)."""
    log_p: FloatArray
    """Shape ``(V, V)``: natural logarithms of :attr:`p`."""
    vocabulary: Vocabulary
    """The characters behind the ids."""


class BigramTable:
    """A bigram whose table is in memory; every token is its own context.

    Args:
        p: Shape ``(V, V)``, rows of sum 1.

    Raises:
        TargetError: When *p* is not square.
    """

    def __init__(self, p: FloatArray) -> None:
        if p.ndim != 2 or p.shape[0] != p.shape[1]:
            raise TargetError(f"a bigram has as many rows as columns, got the shape {p.shape}")
        self._p = p

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return int(self._p.shape[1])

    @property
    def contexts(self) -> int:
        """Number of contexts, V."""
        return int(self._p.shape[0])

    def context_after(self, token: int) -> int:
        """Returns *token*."""
        return token

    def row(self, context: int) -> FloatArray:
        """Returns a view of the row of *context*."""
        row: FloatArray = self._p[context]
        return row


def build_vocab_from_corpus(path: Path) -> Vocabulary:
    """Returns the characters of a UTF-8 text, sorted; white space and line ends are characters.

    Raises:
        TargetError: When the file cannot be read as text, or is empty.
    """
    return _vocabulary(_text(path))


def make_bigram_from_corpus(path: Path, laplace: float = 1.0) -> CorpusBigram:
    """Returns smoothed frequencies of pairs of adjacent characters.

    Args:
        path: A UTF-8 text of at least two characters.
        laplace: Added to every count, at least 0; with 0 every character needs a successor.

    Raises:
        TargetError: When the text is too short, *laplace* is out of range, or a row stays empty.
    """
    if not 0 <= laplace < np.inf:
        raise TargetError(f"laplace={laplace} must be a finite number of at least 0")
    text = _text(path)
    vocabulary = _vocabulary(text)
    ids = np.array([vocabulary.stoi[character] for character in text])
    size = len(vocabulary.itos)
    counts = np.bincount(ids[:-1] * size + ids[1:], minlength=size * size).reshape(size, size)
    masses = counts + laplace
    totals = masses.sum(axis=1, keepdims=True)
    if not totals.all():
        alone = vocabulary.itos[int(np.flatnonzero(totals == 0)[0])]
        raise TargetError(f"nothing follows {alone!r} in {path}; smooth with laplace above 0")
    p = masses / totals
    with np.errstate(divide="ignore"):
        return CorpusBigram(p, np.log(p), vocabulary)


def make_bigram_synthetic(
    vocab_size: int, seed: int = 7, c: float = 50.0
) -> tuple[FloatArray, FloatArray]:
    """Returns P and log P of shape ``(V, V)``: all rows of a :class:`SyntheticBigram`.

    Args:
        vocab_size: V; a table takes 16 V**2 bytes.
        seed: Any integer from 0.
        c: How much the rows have in common, at least 0.

    Raises:
        TargetError: When a value is out of range.
    """
    rows = SyntheticBigram(vocab_size, seed, c)
    p = np.stack([rows.row(context) for context in range(vocab_size)])
    with np.errstate(divide="ignore"):
        return p, np.log(p)


def row_logprobs(log_p: FloatArray, prev_id: int) -> FloatArray:
    """Returns the view of log P(. | *prev_id*), shape ``(V,)``."""
    row: FloatArray = log_p[prev_id]
    return row


def _text(path: Path) -> str:
    try:
        # Line ends as they are: they are tokens.
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"the corpus {path} cannot be read as UTF-8 text: {error}") from error
    if len(text) < 2:
        raise TargetError(f"the corpus {path} has {len(text)} characters; two are the least")
    return text


def _vocabulary(text: str) -> Vocabulary:
    itos = tuple(sorted(set(text)))
    return Vocabulary({character: place for place, character in enumerate(itos)}, itos)
