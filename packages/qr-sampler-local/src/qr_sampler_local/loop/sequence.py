# SPDX-License-Identifier: Apache-2.0
"""One text in the making, as the loop that makes it sees it."""

from __future__ import annotations

import threading
from typing import Final

from qr_sampler.host import UNKNOWN_TOKEN, Outcome, StopConditions, TokenSequence

__all__ = ["LEFT_TO_CALLER", "LocalSequence"]

LEFT_TO_CALLER: Final = UNKNOWN_TOKEN
"""What stands for a token that the caller has to choose, of a sequence with ``qr_bypass``."""


class LocalSequence:
    """What a sampler knows of one text. Made by :meth:`LocalSampler.sequence`.

    Args:
        core: What the core keeps of it; ``None`` where the caller chooses its tokens.
        stop: What ends it.
        end_token: Stands in the place of its tokens once it has ended, and ends it if it gets no
            more entropy.
        steps_in_flight: See :meth:`LocalSampler.sequence`.
    """

    __slots__ = (
        "closed",
        "core",
        "end_token",
        "outcome",
        "owner",
        "steps_in_flight",
        "stop",
        "thread",
        "tokens",
    )

    def __init__(
        self,
        core: TokenSequence | None,
        stop: StopConditions,
        *,
        owner: object,
        end_token: int,
        steps_in_flight: int,
    ) -> None:
        self.core = core
        """Its sequence in the session; ``None`` where the caller chooses its tokens."""
        self.stop = stop
        """What ends it."""
        self.owner = owner
        """The sampler that has made it."""
        self.end_token = end_token
        """The token that :meth:`LocalSampler.step` returns for it once it has ended."""
        self.steps_in_flight = steps_in_flight
        """Number of its steps that may begin before the token of the first has reached anybody."""
        self.tokens: list[int] = []
        """Its tokens so far; those that were dropped are gone."""
        self.outcome: Outcome | None = None
        """What its latest step has decided; ``None`` before the first."""
        self.closed = False
        """Whether its end has been recorded."""
        self.thread = threading.get_ident()
        """The thread that has stepped it last."""

    @property
    def name(self) -> str:
        """Its name in the records; empty where the caller chooses its tokens."""
        return "" if self.core is None else self.core.name

    @property
    def request_key(self) -> str:
        """Names its request in the records; empty where the caller chooses its tokens."""
        return "" if self.core is None else self.core.request_key

    @property
    def left_to_caller(self) -> bool:
        """Whether the caller chooses its tokens: nothing is drawn or recorded then."""
        return self.core is None

    @property
    def unsettled(self) -> int:
        """Number of its latest tokens that may still be dropped."""
        if self.closed:
            return 0
        return len(self.tokens) if self.core is None else self.core.unsettled

    @property
    def ended(self) -> bool:
        """Whether it gets no more tokens: by its stop conditions, without entropy, or closed."""
        if self.core is None:
            return self.closed or (bool(self.tokens) and self.stop.end_with(self.tokens))
        return self.closed or self.core.ended

    @property
    def finish_reason(self) -> str:
        """Why it has ended; empty while it goes on.

        ``"stop"`` with an end token, ``"length"`` with its last token, ``"forced"`` without
        entropy, ``"closed"`` by the caller.
        """
        if not self.ended:
            return ""
        if self.core is not None and self.core.failure:
            return "forced"
        if self.tokens and self.stop.end_with(self.tokens):
            return "stop" if self.tokens[-1] in self.stop.token_ids else "length"
        return "closed"

    def __repr__(self) -> str:
        state = self.finish_reason or "open"
        return f"LocalSequence({self.request_key!r}, {len(self.tokens)} tokens, {state})"
