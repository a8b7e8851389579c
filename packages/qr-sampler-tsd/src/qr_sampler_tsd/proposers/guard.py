# SPDX-License-Identifier: Apache-2.0
"""A proposer of another project, whose answers are looked at before they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Final, TypeVar

from qr_sampler.foreign import DefectLog, is_signal
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers.base import Proposer, checked_temperature
from qr_sampler_tsd.psi import PsiTopK
from qr_sampler_tsd.psi_relative import PsiRelative

__all__ = ["GuardedProposer"]

_Answer = TypeVar("_Answer")

_NOTHING: Final[Any] = object()
"""The state of a sequence that the proposer has failed for."""


class GuardedProposer(Proposer[Any]):
    """Asks *proposer* and lets nothing pass but what its contract promises.

    A sequence that it fails for gets no more drafts of it, which costs speed and nothing else; the
    first failure of each kind is logged. It is called within a step, so that one which never
    returns holds up the engine.

    Args:
        proposer: The proposer.
        name: What it is configured as.

    Raises:
        ProposerError: When its vocabulary or its temperature is none.
    """

    def __init__(self, proposer: Proposer[Any], name: str) -> None:
        self._proposer = proposer
        size: object = proposer.vocab_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ProposerError(f"its vocab_size is {size!r}, not a number of tokens")
        self._vocab_size = size
        self._temperature = checked_temperature(proposer.temperature)
        self._defects = DefectLog(f"proposer {name!r}", "sequences that it fails for get no drafts")

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return self._vocab_size

    @property
    def temperature(self) -> float | None:
        """The temperature of what it has learned."""
        return self._temperature

    def start(self, tokens: Sequence[int]) -> Any:
        """Returns the state after *tokens*."""
        return self._asked(lambda: self._proposer.start(tokens), _NOTHING)

    def advance(self, state: Any, token: int) -> Any:
        """Returns the state after one more token."""
        if state is _NOTHING:
            return state
        return self._asked(lambda: self._proposer.advance(state, token), _NOTHING)

    def psi(self, state: Any) -> PsiTopK | PsiRelative | None:  # type: ignore[override]
        """Returns the payload for the next token, ``None`` where there is none to trust."""
        if state is _NOTHING:
            return None
        return self._asked(lambda: self._checked(self._proposer.psi(state)), None)

    def confidence(self, state: Any) -> float:
        """Returns what it claims of a mixture."""
        if state is _NOTHING:
            return 0.0
        return self._asked(lambda: _share(self._proposer.confidence(state)), 0.0)

    def _checked(self, psi: Any) -> PsiTopK | PsiRelative | None:
        # What a subclass overrides could fail later.
        if type(psi) not in (PsiTopK, PsiRelative):
            raise TypeError(f"psi() returned {type(psi).__name__}, not a payload")
        if psi.vocab_size != self._vocab_size:
            raise ValueError(f"psi() returned a payload of {psi.vocab_size} tokens")
        payload: PsiTopK | PsiRelative = psi
        return payload

    def _asked(self, question: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
        try:
            return question()
        # Whatever it raises, it has no answer, and that is all.
        except BaseException as error:
            if is_signal(error):
                raise
            self._defects.report(error)
            return otherwise


def _share(value: object) -> float:
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"confidence() returned {value!r}, not a number from 0 to 1")
    return float(value)
