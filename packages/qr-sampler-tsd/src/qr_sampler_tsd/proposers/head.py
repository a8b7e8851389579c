# SPDX-License-Identifier: Apache-2.0
"""A small learned proposer: the last C tokens, one hidden layer, low-rank logits.

The shape is that of the neural probabilistic language model of Bengio et al. 2003 (JMLR 3), the
embedding and the first layer multiplied out: every position c has its own table,

    h = tanh(b + sum over c of T_c[token at c]),    z = W h + a,    q = softmax(z).

Inference is plain NumPy in float32: C look-ups and one product of V rows with d columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qr_sampler_tsd._typing import FloatArray, IdArray, SingleArray
from qr_sampler_tsd.craft import craft_relative_psi
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers.base import (
    Proposer,
    checked_context,
    checked_temperature,
    checked_token,
)
from qr_sampler_tsd.psi_fields import rounded
from qr_sampler_tsd.psi_relative import PsiRelative

__all__ = ["ABSENT", "HeadProposer", "HeadWeights", "softmax"]

_Real = TypeVar("_Real", bound=np.floating)

ABSENT = -1
"""Fills a context while a sequence has fewer tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadWeights:
    """What a head has learned; float32 and read-only.

    Raises:
        ProposerError: When shapes do not fit each other, or a number is not finite.
    """

    tables: SingleArray
    """T, shape ``(C, buckets + 1, d)``; context position 0 is the last token. Token i has the row
    ``i % buckets``, the last row is that of :data:`ABSENT`."""
    hidden_bias: SingleArray
    """b, shape ``(d,)``."""
    output: SingleArray
    """W, shape ``(V, d)``."""
    output_bias: SingleArray
    """a, shape ``(V,)``, natural-log units."""

    def __post_init__(self) -> None:
        """Checks and copies every array."""
        for field in fields(self):
            array: SingleArray = np.array(getattr(self, field.name), dtype=np.float32, order="C")
            if not np.isfinite(array).all():
                raise ProposerError(f"{field.name} of a head holds numbers that are not finite")
            array.flags.writeable = False
            object.__setattr__(self, field.name, array)
        _check_shapes(self)

    @classmethod
    def initial(
        cls,
        unigram: FloatArray,
        *,
        context_tokens: int,
        width: int,
        buckets: int,
        rng: np.random.Generator | int,
    ) -> HeadWeights:
        """Returns weights that give *unigram* in every context, ready to train.

        Args:
            unigram: Shape ``(V,)``, above 0: the distribution to start from.
            context_tokens: C, at least 1.
            width: d, at least 1.
            buckets: Rows that tokens share, at least 1; at most V are of use, and used.
            rng: Supplies the first tables.

        Raises:
            ProposerError: When a number is out of range, or *unigram* is not above 0 everywhere.
        """
        for name, value in {"context": context_tokens, "width": width, "buckets": buckets}.items():
            if value < 1:
                raise ProposerError(f"{name}={value} of a head must be at least 1")
        law = np.asarray(unigram, dtype=np.float64)
        if law.ndim != 1 or not law.size or not (law > 0).all():
            raise ProposerError("a head starts from a law that gives every token probability")
        rows = min(buckets, law.size) + 1
        deviation = 1.0 / np.sqrt(context_tokens)
        tables = np.random.default_rng(rng).normal(0.0, deviation, (context_tokens, rows, width))
        return cls(
            tables=tables.astype(np.float32),
            hidden_bias=np.zeros(width, np.float32),
            output=np.zeros((law.size, width), np.float32),
            output_bias=np.log(law / law.sum()).astype(np.float32),
        )

    @property
    def context_tokens(self) -> int:
        """Tokens that the head looks back, C."""
        return int(self.tables.shape[0])

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return int(self.output.shape[0])

    @property
    def size_bytes(self) -> int:
        """Memory of all weights."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def table_rows(self, contexts: IdArray) -> IdArray:
        """Returns the rows of the tables that belong to *contexts*, of their shape.

        Args:
            contexts: Shape ``(B, C)``: the last tokens, the newest first, :data:`ABSENT` for none.
        """
        buckets = self.tables.shape[1] - 1
        rows: IdArray = np.where(contexts == ABSENT, buckets, contexts % buckets).astype(np.int32)
        return rows

    def hidden(self, rows: IdArray) -> SingleArray:
        """Returns h, shape ``(B, d)``, for :meth:`table_rows` of shape ``(B, C)``."""
        positions = np.arange(self.context_tokens)
        summed: SingleArray = self.tables[positions, rows].sum(axis=1)
        activations: SingleArray = np.tanh(summed + self.hidden_bias)
        return activations

    def logits(self, contexts: IdArray) -> SingleArray:
        """Returns z, shape ``(B, V)``, for *contexts* of :meth:`table_rows`."""
        hidden = self.hidden(self.table_rows(contexts))
        logits: SingleArray = hidden @ self.output.T + self.output_bias
        return logits


class HeadProposer(Proposer[tuple[int, ...]]):
    """The K best tokens of a learned head; its state are the last C tokens.

    Args:
        weights: What was learned.
        k: Tokens of a payload's head, 1 to V.
        tau: Temperature of the scores; the tail keeps its mass at any.
        temperature: Of what was learned, above 0; ``None`` where it is not known.

    Raises:
        ProposerError: When *k* or *temperature* is out of range.
        PsiError: When *tau* is.
    """

    def __init__(
        self,
        weights: HeadWeights,
        k: int,
        *,
        tau: float = 1.0,
        temperature: float | None = None,
    ) -> None:
        if not 1 <= k <= weights.vocab_size:
            raise ProposerError(f"k={k} must be from 1 to the {weights.vocab_size} tokens")
        self.weights = weights
        """What was learned."""
        self.k = k
        """Tokens of a payload's head."""
        self.tau = rounded(tau, np.float16, "tau", positive=True)
        """Temperature of the scores."""
        self._temperature = checked_temperature(temperature)

    @property
    def temperature(self) -> float | None:
        """The temperature of what was learned; ``None`` where it is not known."""
        return self._temperature

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return self.weights.vocab_size

    def start(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Returns the last C of *tokens*, or all when they are fewer."""
        return checked_context(tokens, self.weights.context_tokens, self.vocab_size)

    def advance(self, state: tuple[int, ...], token: int) -> tuple[int, ...]:
        """Returns the last C tokens after one more."""
        longer = (*state, checked_token(token, self.vocab_size))
        return longer[-self.weights.context_tokens :]

    def psi(self, state: tuple[int, ...]) -> PsiRelative:
        """Returns the payload for the next token: the head's distribution, its tail made even."""
        context = np.full((1, self.weights.context_tokens), ABSENT, dtype=np.int32)
        context[0, : len(state)] = state[::-1]
        law = softmax(self.weights.logits(context).astype(np.float64))[0]
        return craft_relative_psi(law, self.k, self.tau)


def softmax(logits: NDArray[_Real]) -> NDArray[_Real]:
    """Returns the softmax of *logits*, natural-log units, over their last axis, in their dtype."""
    shifted: NDArray[_Real] = logits - logits.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def _check_shapes(weights: HeadWeights) -> None:
    tables, output = weights.tables.shape, weights.output.shape
    fits = (
        len(tables) == 3
        and len(output) == 2
        and min((*tables, *output)) >= 1
        and tables[1] >= 2
        and tables[2] == output[1]
        and weights.hidden_bias.shape == output[1:]
        and weights.output_bias.shape == output[:1]
    )
    if not fits:
        shapes = {field.name: getattr(weights, field.name).shape for field in fields(weights)}
        raise ProposerError(f"the arrays of a head do not fit each other: {shapes}")
