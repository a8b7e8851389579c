# SPDX-License-Identifier: Apache-2.0
"""The texts of sequences, gathered line by line until each is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.reading.redacted import REDACTED_ID
from qr_sampler_cli.audit.rederivation.parameters import UnknownParametersError, parameters_of
from qr_sampler_cli.audit.rederivation.transcripts import BYTES_PER_TOKEN, Transcript
from qr_sampler_cli.audit.schema.token_lines import (
    Emission,
    End,
    Forced,
    Sequence,
    Token,
    Undecided,
)

__all__ = ["MOST_OPEN_TOKENS", "Gathering"]

MOST_OPEN_TOKENS: Final = 2**31 // (8 * BYTES_PER_TOKEN)
"""Most tokens of sequences that have not ended; they take 256 MiB."""

_HOLES: Final = "tokens after a hole in their sequence"
_REDACTED: Final = "tokens after redacted ones"
_CONTINUED: Final = "tokens of sequences that continue others"
_TOO_MANY: Final = f"tokens of sequences that are open at once, {MOST_OPEN_TOKENS:,} in all"
_FIELDS: Final = {
    "penalties": ("repetition_penalty", "frequency_penalty", "presence_penalty"),
    "a bias of logits": ("logit_bias",),
    "allowed tokens": ("allowed_token_ids",),
    "bad words": ("bad_words",),
    "grammars": ("structured_outputs",),
}
"""What changes logits before the plugin sees them."""

_NAMES: Final = {field: name for name, fields in _FIELDS.items() for field in fields}


class Gathering:
    """Takes in lines and hands out the sequences that can be derived again, each when it is over.

    Args:
        rung: Takes what cannot be said, by its reason, and counts tokens.
        has_prompt: Says whether the prompt of a sequence is known.
        over: Is given every sequence that is over and has tokens.
    """

    def __init__(
        self,
        rung: Rung,
        has_prompt: Callable[[Sequence], bool],
        over: Callable[[Transcript], object],
    ) -> None:
        self._rung = rung
        self._has_prompt = has_prompt
        self._over = over
        self._open: dict[str, Transcript | str] = {}
        """Sequences that have not ended: their tokens, or why they cannot be derived again."""
        self._tokens = 0

    def begin(self, line: Sequence, place: int) -> None:
        """Takes in the line of a sequence; later files may repeat it."""
        if line.sequence in self._open:
            return
        fields = dict(line.fields)
        min_tokens = fields.pop("min_tokens", 0)
        reason = _reason(line, fields)
        if not reason and not self._has_prompt(line):
            reason = "tokens whose prompt is not here"
        if reason:
            self._open[line.sequence] = reason
            return
        try:
            parameters = parameters_of(line.options)
        except UnknownParametersError as error:
            self._open[line.sequence] = f"tokens sampled with {error}"
        else:
            fewest = min_tokens if type(min_tokens) is int else 2**62
            self._open[line.sequence] = Transcript(line, place, parameters, fewest)

    def token(self, line: Token, place: int) -> None:
        """Takes in a token that entropy has chosen."""
        transcript = self._transcript(line, place)
        if transcript is not None:
            transcript.append(line, place)
            self._tokens += 1

    def unchosen(self, line: Forced | Undecided, place: int) -> None:
        """Takes in a token that is only text."""
        transcript = self._transcript(line, place)
        if transcript is not None:
            transcript.append_unchosen(line.token_id, place)
            self._tokens += 1

    def _transcript(self, line: Token | Forced | Undecided, place: int) -> Transcript | None:
        """Returns the sequence that the next token belongs to, ready for its position."""
        if line.token_id == REDACTED_ID:
            # They are counted where they are read.
            self._redacted(line.sequence)
            return None
        found = self._open.get(line.sequence, "tokens of sequences whose line is not here")
        if isinstance(found, Transcript):
            if line.position < len(found):
                self._truncate(found, line.position)
            if line.position > len(found):
                found = self._close(found, _HOLES if len(found) else _CONTINUED)
            elif self._tokens >= MOST_OPEN_TOKENS:
                self._truncate(found, 0)
                found = self._open[line.sequence] = _TOO_MANY
        if isinstance(found, Transcript):
            return found
        self._rung.cannot_say(found, place)
        return None

    def _redacted(self, name: str) -> None:
        found = self._open.get(name)
        if isinstance(found, Transcript):
            self._close(found, _REDACTED)

    def _close(self, transcript: Transcript, reason: str) -> str:
        """Hands out what there is of a sequence; what follows is left out for *reason*."""
        self._open[transcript.line.sequence] = reason
        self._hand_out(transcript)
        return reason

    def _truncate(self, transcript: Transcript, length: int) -> None:
        self._tokens -= len(transcript) - length
        transcript.truncate(length)

    def settle(self, line: Emission, place: int) -> None:
        """Takes in what became of a token."""
        found = self._open.get(line.sequence)
        if not line.emitted and isinstance(found, Transcript) and line.position < len(found):
            self._truncate(found, line.position)

    def end(self, line: End, place: int) -> None:
        """Takes in the end of a sequence."""
        found = self._open.pop(line.sequence, None)
        if isinstance(found, Transcript):
            self._hand_out(found)

    def _hand_out(self, transcript: Transcript) -> None:
        self._tokens -= len(transcript)
        if len(transcript):
            self._over(transcript)

    def finish(self) -> None:
        """Hands out the sequences that have no end."""
        for found in self._open.values():
            if isinstance(found, Transcript):
                self._hand_out(found)
        self._open.clear()


def _reason(line: Sequence, fields: dict[str, object]) -> str:
    """Returns why the logits of a sequence are not those of the model alone; empty if they are."""
    names = dict.fromkeys(_NAMES.get(name, f"the field {name[:40]!r}") for name in fields)
    return f"tokens with {', '.join(names)}" if names else ""
