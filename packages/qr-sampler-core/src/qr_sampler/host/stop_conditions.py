# SPDX-License-Identifier: Apache-2.0
"""When a sequence ends.

The ledger holds only emitted tokens, and a sampler may not learn which those are: an engine may
keep sampling before it has seen a stop token, and may look for stop strings in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qr_sampler.records.long_values import shortened

__all__ = ["StopConditions", "StopStrings"]


class StopStrings(Protocol):
    """Looks for stop strings in the text of a sequence."""

    def found_with(self, token_id: int) -> bool:
        """Consumes the next token and returns whether it completes a stop string."""

    def start_again(self, tokens: Sequence[int]) -> None:
        """Starts again from *tokens*, none of which completes a stop string."""


@dataclass(slots=True)
class StopConditions:
    """What ends one sequence."""

    token_ids: frozenset[int] = frozenset()
    """Tokens that end it; without the end-of-text token if the request asked to ignore that one."""
    max_tokens: int | None = None
    """Number of tokens after which it ends."""
    max_length: int | None = None
    """The same for the prompt and the tokens together."""
    prompt_length: int = 0
    """Number of tokens in the prompt."""
    min_tokens: int = 0
    """Number of tokens before which repetition does not end it."""
    repeats: Callable[[Sequence[int]], bool] | None = None
    """Whether its tokens repeat themselves in a way that ends the request."""
    stop_strings: StopStrings | None = None
    """Looks for stop strings, if it has any."""

    def as_dict(self) -> dict[str, Any]:
        """Returns what ends it, as JSON-ready values for the ledger."""
        return {
            "token_ids": shortened(sorted(self.token_ids), self.token_ids),
            "max_tokens": self.max_tokens,
            "max_length": self.max_length,
            "min_tokens": self.min_tokens,
            "stop_strings": self.stop_strings is not None,
        }

    def end_with(self, tokens: Sequence[int]) -> bool:
        """Checks the last of *tokens* and returns whether the sequence ends with it.

        Stop strings come last: a token that ends the sequence anyway adds nothing to its text.

        Args:
            tokens: All tokens of the sequence. To be called once for each of them, in order.
        """
        count = len(tokens)
        if (
            tokens[-1] in self.token_ids
            or (self.max_tokens is not None and count >= self.max_tokens)
            or (self.max_length is not None and self.prompt_length + count >= self.max_length)
            or (self.repeats is not None and count >= self.min_tokens and self.repeats(tokens))
        ):
            return True
        return self.stop_strings is not None and self.stop_strings.found_with(tokens[-1])

    def start_again(self, tokens: Sequence[int]) -> None:
        """Continues from *tokens*, which may differ from those checked so far."""
        if self.stop_strings is not None:
            self.stop_strings.start_again(tokens)
