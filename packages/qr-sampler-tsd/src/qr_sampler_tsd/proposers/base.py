# SPDX-License-Identifier: Apache-2.0
"""The contract of a proposer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.psi_fields import Psi

__all__ = ["Proposer", "checked_context", "checked_temperature", "checked_token"]

State = TypeVar("State")


class Proposer(ABC, Generic[State]):
    """Maps the tokens of a sequence so far to a payload for the next one.

    What it carries from token to token is a state per sequence. States are immutable: a verifier
    that rejects a draft continues from the state after the last accepted token.

    Must be overridden: :attr:`vocab_size`, :meth:`start`, :meth:`advance` and :meth:`psi`. May be:
    :meth:`for_vocabulary`, :attr:`temperature` and :meth:`confidence`. None of them draws
    randomness. An instance serves any number of sequences at once.
    """

    is_oracle: ClassVar[bool] = False
    """Whether it looks at the target's own distribution, which no proposer of any use does."""

    @classmethod
    def for_vocabulary(cls, vocab_size: int) -> Proposer[Any]:
        """Returns what its name in the configuration stands for; ``cls(vocab_size)`` by default.

        Args:
            vocab_size: Number of tokens of the model.
        """
        return cls(vocab_size)  # type: ignore[call-arg]

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens, V."""

    @property
    def temperature(self) -> float | None:
        """The temperature of what it has learned, above 0; ``None`` where that is not known.

        :func:`qr_sampler_tsd.fitting.fit` brings its payloads to that of a request.
        """
        return None

    def confidence(self, state: State) -> float:
        """Returns what share of a mixture it claims after some tokens, in [0, 1]; all by default.

        See :class:`~qr_sampler_tsd.proposers.MixedProposer`.
        """
        return 1.0

    @abstractmethod
    def start(self, tokens: Sequence[int]) -> State:
        """Returns the state of a sequence after *tokens*, at least one.

        Raises:
            ProposerError: When there is no token, or one is outside the vocabulary.
        """

    @abstractmethod
    def advance(self, state: State, token: int) -> State:
        """Returns the state after one more token.

        Raises:
            ProposerError: When *token* is outside the vocabulary.
        """

    @abstractmethod
    def psi(self, state: State) -> Psi:
        """Returns the payload for the next token."""


def checked_temperature(temperature: float | None) -> float | None:
    """Returns *temperature*.

    Raises:
        ProposerError: When it is neither a number above 0 nor ``None``.
    """
    if temperature is not None and not 0 < temperature < math.inf:
        raise ProposerError(f"temperature={temperature} must be a number above 0, or None")
    return temperature


def checked_token(token: int, vocab_size: int) -> int:
    """Returns *token* as a plain int.

    Raises:
        ProposerError: When it is outside [0, *vocab_size*).
    """
    if not 0 <= token < vocab_size:
        raise ProposerError(
            f"the token {token} is outside [0, {vocab_size}): the proposer was made for another "
            "vocabulary"
        )
    return int(token)


def checked_context(tokens: Sequence[int], last: int | None, vocab_size: int) -> tuple[int, ...]:
    """Returns the *last* tokens of a sequence as plain ints, ``None`` for all.

    Raises:
        ProposerError: When there is no token, or one of them is outside [0, *vocab_size*).
    """
    if not len(tokens):
        raise ProposerError("a sequence starts with at least one token")
    kept = tokens if last is None else tokens[-last:]
    return tuple(checked_token(token, vocab_size) for token in kept)
