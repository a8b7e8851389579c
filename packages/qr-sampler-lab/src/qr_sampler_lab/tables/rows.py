# SPDX-License-Identifier: Apache-2.0
"""The rows of the tables: each record, with what the lines of its draw and sequence say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from qr_sampler_cli.audit.files import LedgerFile
from qr_sampler_cli.audit.schema.run_lines import Genesis
from qr_sampler_cli.audit.schema.token_lines import Discard, Draw, Token, UsedUniform
from qr_sampler_cli.audit.schema.token_lines import Sequence as SequenceLine
from qr_sampler_lab.tables.columns import EMITTED, NOT_EMITTED, SUSPECT, UNKNOWN
from qr_sampler_lab.tables.lines import Emissions, FileLines, WithoutText

__all__ = [
    "DiscardRow",
    "DrawFacts",
    "Numbering",
    "RunRows",
    "SequenceFacts",
    "SequenceRow",
    "TokenRow",
]

MOST_DRAWS: Final = 2**16
"""Number of latest draws that tokens can be joined with."""

MOST_SEQUENCES: Final = 2**18
"""Number of latest sequences that tokens can be joined with."""

_PAUSE: Final = 2**13
"""Number of records after which rows may be taken away."""


class DrawFacts(NamedTuple):
    """What is kept of a draw for its tokens."""

    received_ns: int
    request_ns: int
    source: str | None
    device: str | None
    fallback: bool
    health: str | None


class SequenceFacts(NamedTuple):
    """What is kept of a sequence for its tokens."""

    number: int
    requested: str | None
    amplifier: str | None
    condition: str | None
    trial: str | None


class TokenRow(NamedTuple):
    """A token, its draw and its sequence."""

    token: Token
    token_id: int
    emitted: int
    draw: DrawFacts
    sequence: SequenceFacts


class DiscardRow(NamedTuple):
    """Bytes that decided nothing, and the sequence that they were drawn for, if there is one."""

    line: Discard
    sequence: SequenceFacts | None


class SequenceRow(NamedTuple):
    """A sequence."""

    line: SequenceLine
    facts: SequenceFacts


class Numbering:
    """Hands out the numbers of sequences, over all runs of a reading."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self) -> int:
        """Returns the next number."""
        number, self._next = self._next, self._next + 1
        return number


class RunRows:
    """Makes rows of the records of a run. They are in the order of the files, not of time.

    Args:
        files: Its files, in order.
        numbering: Of the sequences.
    """

    def __init__(self, files: Sequence[LedgerFile], numbering: Numbering) -> None:
        self.files = files
        self.readings = [FileLines(file) for file in files]
        """The files as far as they are read."""
        self.genesis: Genesis | None = None
        """The first line, once it is read."""
        self.tokens: list[TokenRow] = []
        self.draws: list[Draw] = []
        self.sequences: list[SequenceRow] = []
        self.discards: list[DiscardRow] = []
        self.unplaced = 0
        """Number of tokens whose draw is not there, placed behind the draw that was read last."""
        self._numbering = numbering
        self._known_draws: dict[int, DrawFacts] = {}
        self._known_sequences: dict[str, SequenceFacts] = {}
        self._latest = DrawFacts(0, 0, None, None, False, None)
        self._handlers: dict[type, Callable[[Any, bool], object]] = {
            Token: self._token,
            Draw: self._draw,
            SequenceLine: self._sequence,
            Discard: self._discard,
            Genesis: self._begin,
        }

    def read(self) -> Iterator[None]:
        """Reads all files; pauses now and then, so that rows can be taken away.

        Raises:
            NotALedgerError: When a file cannot be read.
            TablesError: When more has to be remembered than can be.
        """
        self._emissions = Emissions(self.files)
        handlers = self._handlers
        count = 0
        for reading in self.readings:
            for record in reading:
                has_text = not isinstance(record, WithoutText)
                line = record if has_text else record.record
                handler = handlers.get(type(line))
                if handler is not None:
                    handler(line, has_text)
                count += 1
                if count % _PAUSE == 0:
                    yield
        yield

    def _begin(self, line: Genesis, has_text: bool) -> None:
        if self.genesis is None:
            self.genesis = line

    def _draw(self, line: Draw, has_text: bool) -> None:
        known = self._known_draws
        if line.draw not in known:
            self.draws.append(line)
        self._latest = known[line.draw] = DrawFacts(
            line.t_received_ns,
            line.t_request_ns,
            line.source,
            line.device_id,
            line.fallback,
            line.health,
        )
        if len(known) > MOST_DRAWS:
            del known[next(iter(known))]

    def _sequence(self, line: SequenceLine, has_text: bool) -> None:
        known = self._known_sequences
        # A file that continues another says again what sequences are.
        told = known.pop(line.sequence, None)
        if told is None:
            options = line.options
            told = SequenceFacts(
                self._numbering(),
                _text(options.get("source")),
                _text(options.get("signal_amplifier_type")),
                line.condition,
                line.trial,
            )
            self.sequences.append(SequenceRow(line, told))
        known[line.sequence] = told
        if len(known) > MOST_SEQUENCES:
            del known[next(iter(known))]

    def _token(self, line: Token, has_text: bool) -> None:
        emitted = line.emitted
        if emitted is None:
            emitted = self._emissions.take(line.sequence, line.position)
        code = UNKNOWN if emitted is None else EMITTED if emitted else NOT_EMITTED
        token_id = line.token_id if has_text else UNKNOWN
        draw, sequence = self._draw_of(line), self._sequence_of(line.sequence)
        self.tokens.append(TokenRow(line, token_id, code, draw, sequence))

    def _draw_of(self, line: Token) -> DrawFacts:
        draw = None if line.draw is None else self._known_draws.get(line.draw)
        used = line.uniforms
        if draw is None:
            draw = self._named_by_number(line)
        if used is not None:
            fallback = any(each.fallback for each in used)
            return draw._replace(fallback=fallback, health=self._health_among(draw, used))
        return draw

    def _health_among(self, draw: DrawFacts, used: Sequence[UsedUniform]) -> str | None:
        """Returns ``suspect`` if the bytes of any number are, else what its own draw says."""
        draws = (
            self._known_draws.get(UNKNOWN if each.draw is None else each.draw) for each in used
        )
        return SUSPECT if any(each and each.health == SUSPECT for each in draws) else draw.health

    def _named_by_number(self, line: Token) -> DrawFacts:
        """Returns what the numbers of a token say of its draw, whose line is not there."""
        for each in line.uniforms or ():
            if each.role == line.role and each.t_received_ns is not None:
                requested = each.t_request_ns or each.t_received_ns
                return DrawFacts(
                    each.t_received_ns, requested, each.source, None, each.fallback, None
                )
        self.unplaced += 1
        latest = self._latest
        return DrawFacts(latest.received_ns, latest.request_ns, None, None, False, None)

    def _sequence_of(self, name: str) -> SequenceFacts:
        known = self._known_sequences.get(name)
        if known is None:
            known = SequenceFacts(self._numbering(), None, None, None, None)
            self._known_sequences[name] = known
        return known

    def _discard(self, line: Discard, has_text: bool) -> None:
        sequence = self._sequence_of(line.sequence) if line.sequence else None
        self.discards.append(DiscardRow(line, sequence))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
