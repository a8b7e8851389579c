# SPDX-License-Identifier: Apache-2.0
"""The tokens of one sequence, with what their lines say of them."""

from __future__ import annotations

from array import array
from enum import IntEnum
from typing import Final, NamedTuple

from qr_sampler import SamplingParameters
from qr_sampler_cli.audit.schema.token_lines import Sequence, Token

__all__ = ["BYTES_PER_TOKEN", "Decided", "RecordedNumbers", "Transcript"]


class Decided(IntEnum):
    """What has decided a token."""

    NOTHING = 0
    """No entropy: it is fed as text and not judged."""
    ONE_NUMBER = 1
    """The recorded u, through the selector."""
    SEVERAL_NUMBERS = 2
    """Those of a verified draft: its row is judged, its choice is not."""


class RecordedNumbers(NamedTuple):
    """What the line of a token says of its row."""

    u: float
    temperature: float
    entropy_nats: float
    varentropy_nats2: float
    running_entropy_nats: float
    """NaN for none."""
    rank: float
    probability: float
    candidates: float


_WIDTH: Final = len(RecordedNumbers._fields)

_NOTHING: Final = (0.0,) * _WIDTH

BYTES_PER_TOKEN: Final = 8 * (_WIDTH + 2) + 1
"""What is remembered of a token until its sequence is judged."""


class Transcript:
    """A sequence from its first token on.

    Args:
        line: Its line.
        place: Where that stands.
        parameters: What its tokens are sampled with.
        min_tokens: Number of tokens before which the engine has masked some.
    """

    def __init__(
        self, line: Sequence, place: int, parameters: SamplingParameters, min_tokens: int
    ) -> None:
        self.line = line
        self.place = place
        self.parameters = parameters
        self.min_tokens = min_tokens
        self.prompt = array("i")
        """The ids of its prompt, once it is complete."""
        self.ids = array("q")
        """The tokens."""
        self.places = array("q")
        """Places of their lines."""
        self.decided = array("b")
        """A :class:`Decided` of each."""
        self._numbers = array("d")

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, line: Token, place: int) -> None:
        """Adds a token that entropy has chosen."""
        running = line.running_entropy_nats
        several = line.uniforms is not None
        self._append(
            line.token_id,
            place,
            Decided.SEVERAL_NUMBERS if several else Decided.ONE_NUMBER,
            (
                line.u,
                line.temperature,
                line.entropy_nats,
                line.varentropy_nats2,
                float("nan") if running is None else running,
                # Beyond any vocabulary float64 need not be exact.
                float(line.rank),
                line.probability,
                float(line.candidates),
            ),
        )

    def append_unchosen(self, token_id: int, place: int) -> None:
        """Adds a token that no entropy has chosen."""
        self._append(token_id, place, Decided.NOTHING, _NOTHING)

    def _append(
        self, token_id: int, place: int, decided: Decided, numbers: tuple[float, ...]
    ) -> None:
        self.ids.append(token_id)
        self.places.append(place)
        self.decided.append(decided)
        self._numbers.extend(numbers)

    def truncate(self, length: int) -> None:
        """Forgets all tokens from position *length* on."""
        del self.ids[length:], self.places[length:], self.decided[length:]
        del self._numbers[length * _WIDTH :]

    def numbers(self, position: int) -> RecordedNumbers:
        """Returns what is recorded of the token at *position*."""
        return RecordedNumbers(*self._numbers[position * _WIDTH : (position + 1) * _WIDTH])
