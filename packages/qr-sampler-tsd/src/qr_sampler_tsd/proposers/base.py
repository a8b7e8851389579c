# SPDX-License-Identifier: Apache-2.0
"""The contract of a proposer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from qr_sampler_tsd.psi_fields import Psi

__all__ = ["Proposer"]

State = TypeVar("State")


class Proposer(ABC, Generic[State]):
    """Maps the tokens of a sequence so far to a payload for the next one.

    What it carries from token to token is a state per sequence. States are immutable: a verifier
    that rejects a draft goes on from the state after the last token that stood.

    Must be overridden: :attr:`vocab_size`, :meth:`start`, :meth:`advance` and :meth:`psi`. None of
    them draws randomness. An instance serves any number of sequences at once.
    """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens, V."""

    @abstractmethod
    def start(self, tokens: Sequence[int]) -> State:
        """Returns the state of a sequence after *tokens*, at least one."""

    @abstractmethod
    def advance(self, state: State, token: int) -> State:
        """Returns the state after one more token."""

    @abstractmethod
    def psi(self, state: State) -> Psi:
        """Returns the payload for the next token."""
