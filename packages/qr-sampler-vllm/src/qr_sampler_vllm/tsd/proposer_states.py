# SPDX-License-Identifier: Apache-2.0
"""What a proposer remembers of each sequence of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["ProposerStates"]


class _Known(NamedTuple):
    """The proposer's state of a sequence."""

    length: int
    """Number of its tokens, the prompt included."""
    last: int
    """The last of them."""
    state: Any


class ProposerStates:
    """The states of a proposer by the names of requests.

    They advance over emitted tokens only: states are immutable, so that a rejected draft leaves no
    trace, and a reused row of the batch starts afresh.

    Args:
        proposer: A ``Proposer``.
    """

    def __init__(self, proposer: Any) -> None:
        self.proposer = proposer
        """The proposer."""
        self._known: dict[str, _Known] = {}

    def after(self, name: str, count: int, read: Callable[[int], list[int]]) -> Any:
        """Returns the state after *count* tokens, advanced from the last known one of a prefix.

        Args:
            name: Of the request.
            count: Number of its tokens, the prompt included.
            read: Returns the tokens from an index on, up to *count*.
        """
        known = self._known.get(name)
        if known is not None and known.length <= count:
            recent = read(known.length - 1)
            # vLLM may have taken tokens back.
            if recent[0] == known.last:
                return self._keep(name, count, self._advanced(known.state, recent[1:]), recent)
        tokens = read(0)
        return self._keep(name, count, self.proposer.start(tokens), tokens)

    def forget(self, names: Iterable[str]) -> None:
        """Forgets sequences that have ended, or begin anew."""
        for name in names:
            self._known.pop(name, None)

    def forget_all_but(self, names: Iterable[str]) -> None:
        """Forgets all sequences but those of *names*."""
        self.forget(self._known.keys() - names)

    def _advanced(self, state: Any, tokens: list[int]) -> Any:
        for token in tokens:
            state = self.proposer.advance(state, token)
        return state

    def _keep(self, name: str, count: int, state: Any, recent: list[int]) -> Any:
        self._known[name] = _Known(count, recent[-1], state)
        return state
