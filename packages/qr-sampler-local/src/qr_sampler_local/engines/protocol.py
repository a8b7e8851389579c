# SPDX-License-Identifier: Apache-2.0
"""What every engine offers, and what it says of the tokens that it emits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from qr_sampler.host import ChosenToken, Outcome

__all__ = ["EmittedToken", "FinishReason", "Generated", "LocalEngine", "TokenListener"]

FinishReason: TypeAlias = Literal["stop", "length", "interrupted"]
"""Why a sequence is over: a token that ends it, its length limit, or ``KeyboardInterrupt``."""


@dataclass(frozen=True, slots=True)
class EmittedToken:
    """A token as it is handed to whoever reads, with what chose it."""

    prompt: int
    """Index of its prompt among those of the call."""
    position: int
    """Its index among the tokens of its sequence."""
    token_id: int
    """The token."""
    u: float | None = None
    """The number that selected it, in the open interval (0, 1); ``None``, and so what follows, if
    no entropy has chosen it."""
    rank: int | None = None
    """Its rank, 0 for the most probable."""
    source: str | None = None
    """Name of the source that supplied the bytes."""
    fallback: bool = False
    """Whether that is another source than the configured one."""

    @classmethod
    def of(cls, prompt: int, outcome: Outcome) -> EmittedToken:
        """Returns what *outcome* says of a token.

        Args:
            prompt: Index of its prompt.
            outcome: What the sampling session has decided for its row.
        """
        position, token_id = outcome.position, outcome.token_id
        if not isinstance(outcome, ChosenToken):
            return cls(prompt, position, token_id)
        step, row = outcome.step, outcome.row
        return cls(
            prompt,
            position,
            token_id,
            u=step.u[row],
            rank=step.rank[row],
            source=step.draw.source,
            fallback=step.draw.fallback,
        )


TokenListener: TypeAlias = Callable[[EmittedToken], object]
"""Called with each token when it is emitted, in the thread that generates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What was emitted for one prompt."""

    sequence: str
    """Name of its sequence in the records."""
    request_key: str
    """Names its request in the records."""
    tokens: tuple[int, ...]
    """The emitted tokens, the one that ended it included."""
    finish_reason: FinishReason
    """Why it is over."""


class LocalEngine(Protocol):
    """A model that generates text in this process, every token chosen by an entropy source.

    Made by its class as ``Class(model, *, settings, arguments)``: name or path of the model, the
    deployment's settings (those of the environment if ``None``), and the engine's own arguments by
    name. An argument that it does not know is a :class:`~qr_sampler.errors.ConfigError`.

    One thread uses it at a time.
    """

    @property
    def name(self) -> str:
        """Its name as users type it, such as ``"transformers"``."""

    @property
    def version(self) -> str:
        """Version of the library that computes the logits."""

    @property
    def device(self) -> str:
        """What it computes on, such as ``"cpu"`` or ``"cuda:0"``."""

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a text to continue, with those that the model begins texts with."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the tokens of a conversation, up to where the model's next reply begins.

        Args:
            messages: Each with ``role`` (``"system"``, ``"user"`` or ``"assistant"``) and
                ``content``.

        Raises:
            ConfigError: When the model has no chat template, or its template refuses the messages.
        """

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without those that only structure it."""

    def spell(self, token_id: int) -> str:
        """Returns the text of one token, or its entry in the vocabulary if that is no whole text.

        A token may be a part of a character.
        """

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        options: Sequence[Mapping[str, object]],
        on_token: TokenListener | None = None,
    ) -> list[Generated]:
        """Returns what was emitted for each prompt; all are generated from together.

        A token counts as emitted once it was handed to *on_token*; what was drawn for others is in
        the records as a discard. ``KeyboardInterrupt`` ends the call early: it returns what there
        is, with ``"interrupted"`` where a sequence was not over.

        Args:
            prompts: The tokens of each prompt, at least one.
            max_tokens: Most tokens per prompt, at least 1.
            options: The ``qr_*`` options of each prompt.
            on_token: Called with each token; what it raises ends the call, and is raised here when
                the records are complete.

        Raises:
            ConfigError: When an option is unknown or out of range, or a prompt is too long.
        """

    def close(self) -> None:
        """Ends the records and frees the model. A second call does nothing."""
