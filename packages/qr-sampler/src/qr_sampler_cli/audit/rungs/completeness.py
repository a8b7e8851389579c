# SPDX-License-Identifier: Apache-2.0
"""Rung 2: no token and no byte is missing, and none is there twice."""

from __future__ import annotations

from array import array
from typing import Final

from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.reading.redacted import REDACTED_ID
from qr_sampler_cli.audit.rungs.draw_accounts import DrawAccounts
from qr_sampler_cli.audit.rungs.emitted import ReceivedTokens
from qr_sampler_cli.audit.rungs.losses import Losses
from qr_sampler_cli.audit.rungs.open_items import OpenSequence, UnsettledToken
from qr_sampler_cli.audit.schema.token_lines import Emission, End, Sequence

__all__ = ["Completeness"]

_WITHOUT_END: Final = "what became of sequences without an end"


class Completeness:
    """Follows every sequence from its first token to its end, and every draw to its last byte.

    Only open sequences and draws are remembered, and of ended sequences a number of eight bytes.

    Args:
        rung: Takes the findings.
        received: What clients have received, if that is known.
    """

    def __init__(self, rung: Rung, received: ReceivedTokens | None = None) -> None:
        self._rung = rung
        self._received = received
        self.losses = Losses(rung)
        """What gaps have told of."""
        self.sequences: dict[str, OpenSequence] = {}
        self.draws = DrawAccounts(rung, self.losses)
        self.part = 0
        """Number of the part that is being read: files, and what gaps divide them into."""
        self.begins_later = False
        """Whether a file that is not there came before."""
        self._ended: set[int] = set()
        self.tokens = 0
        """Number of tokens."""

    def begin_in_between(self) -> None:
        """Says that the file before is not there; what came earlier is not gone on with."""
        for sequence in self.sequences.values():
            self._rung.cannot_say(_WITHOUT_END, sequence.place)
        self.sequences.clear()
        self.draws.begin_in_between()
        self.begins_later = True

    def begin_sequence(self, line: Sequence, place: int) -> None:
        """Takes in the line of a sequence."""
        known = self.sequences.get(line.sequence)
        if known is not None and known.part != self.part:
            # After a gap, and in another file, lines say again what they refer to.
            known.part = self.part
            return
        ended = hash(line.sequence) in self._ended
        if ended and self.part > 1:
            # Bytes that were drawn beyond its end may stand in a later part.
            return
        if known is not None or ended:
            self._rung.fail(place, f"the sequence {line.sequence[:40]!r} is there already")
            return
        self._open(line.sequence, line, place)

    def _open(self, name: str, line: Sequence | None, place: int) -> OpenSequence:
        sequence = OpenSequence(name, line, place, self.part)
        if self._received is not None:
            sequence.ids = array("q")
        self.sequences[name] = sequence
        return sequence

    def take(
        self, name: str, position: int, token_id: int, emitted: bool | None, place: int
    ) -> OpenSequence:
        """Takes in a token, and returns its sequence."""
        sequence = self.sequences.get(name) or self._missed(name, place)
        self.tokens += 1
        if position != sequence.next:
            self._judge_position(sequence, position, place)
        if sequence.first < 0:
            sequence.first = position
            if not position:
                sequence.link = b""
        if position >= sequence.next:
            sequence.next = position + 1
        if emitted:
            sequence.emitted += 1
            sequence.sure = position + 1
        else:
            sequence.unsettled[position] = UnsettledToken(token_id, sequence.link)
        if sequence.ids is not None:
            del sequence.ids[position - sequence.first :]
            sequence.ids.append(token_id)
        return sequence

    def _missed(self, name: str, place: int) -> OpenSequence:
        """Returns a sequence that a token names without a line of it."""
        if hash(name) in self._ended:
            self._rung.fail(place, f"the sequence {name[:40]!r} has ended before")
        elif self.begins_later:
            self._rung.cannot_say("sequences whose line is in an earlier file", place)
        elif not self.losses.excuse("sequence"):
            self._rung.fail(place, f"no line before it describes the sequence {name[:40]!r}")
        sequence = self._open(name, None, place)
        sequence.link = None
        return sequence

    def _judge_position(self, sequence: OpenSequence, position: int, place: int) -> None:
        if sequence.first < 0:
            if self.begins_later or self.losses.any_positions():
                sequence.link = None
            self._rung.cannot_say(
                "tokens before the first of a sequence that continues another", place
            )
        elif position < sequence.next:
            self._rung.fail(
                place, f"position {position} of {sequence.name[:40]!r} is there already"
            )
        elif self.losses.excuse_positions(position - sequence.next):
            sequence.emitted += position - sequence.next
            sequence.link = None
        else:
            self._rung.fail(
                place,
                f"position {position} of {sequence.name[:40]!r} follows position "
                f"{sequence.next - 1}",
            )

    def without_draw(self, place: int) -> None:
        """Takes in bytes of which no line says where they come from."""
        self._rung.cannot_say("bytes of tokens whose draws are not recorded", place)

    def miscounted(self, place: int) -> None:
        """Takes in a token whose numbers have other bytes than its line says."""
        self._rung.fail(place, "the bytes of its numbers do not add up to block_bytes")

    def settle(self, line: Emission, place: int) -> None:
        """Takes in what became of a token that was not settled."""
        sequence = self.sequences.get(line.sequence)
        token = None if sequence is None else sequence.unsettled.pop(line.position, None)
        if sequence is None or token is None or not _same(token.token_id, line.token_id):
            if not self.begins_later and not self.losses.excuse_emission():
                self._rung.fail(
                    place, f"no token {line.token_id} at position {line.position} waits for it"
                )
        elif line.emitted:
            sequence.emitted += 1
            sequence.sure = max(sequence.sure, line.position + 1)
        else:
            self._drop(sequence, line.position, token, place)

    def _drop(
        self, sequence: OpenSequence, position: int, token: UnsettledToken, place: int
    ) -> None:
        if position < sequence.sure:
            self._rung.fail(
                place, f"position {position} was emitted: position {sequence.sure - 1} was"
            )
        elif position < sequence.next:
            sequence.next, sequence.link = position, token.link
            sequence.draw = sequence.told = -1
            if sequence.ids is not None:
                del sequence.ids[position - max(sequence.first, 0) :]

    def end(self, line: End, place: int) -> OpenSequence | None:
        """Takes in the end of a sequence, and returns it."""
        sequence = self.sequences.pop(line.sequence, None)
        if sequence is None:
            if hash(line.sequence) in self._ended:
                self._rung.fail(place, f"the sequence {line.sequence[:40]!r} has ended before")
            elif not self.begins_later and not self.losses.excuse("sequence"):
                self._rung.fail(
                    place, f"no line before it describes the sequence {line.sequence[:40]!r}"
                )
            return None
        self._ended.add(hash(line.sequence))
        if self.begins_later and sequence.first != 0:
            self._rung.cannot_say("how many tokens sequences had in an earlier file", place)
        else:
            self._judge_number(sequence, line.tokens, place)
        if self._received is not None:
            self._received.compare(sequence, place, self._rung)
        return sequence

    def _judge_number(self, sequence: OpenSequence, told: int, place: int) -> None:
        fewest = sequence.emitted
        possible = range(fewest, fewest + len(sequence.unsettled) + 1)
        # Of a fork, the tokens of the sequence that it continues may be counted or not.
        if {told, told - max(sequence.first, 0)} & {*possible}:
            return
        short = told - possible[-1]
        if short < 0 or not self.losses.excuse_positions(short):
            self._rung.fail(
                place, f"it has {fewest} tokens and the end of the sequence says {told}"
            )

    def finish(self, *, closed: bool) -> None:
        """Judges what is still open when there are no more lines.

        Args:
            closed: Whether the last file was ended in order.
        """
        for sequence in self.sequences.values():
            if not closed or self.begins_later:
                self._rung.cannot_say(_WITHOUT_END, sequence.place)
            elif not self.losses.excuse("end"):
                self._rung.fail(sequence.place, f"{sequence.name[:40]!r} has no end")
            if self._received is not None:
                self._received.compare(sequence, sequence.place, self._rung)
        self.draws.finish(closed=closed, begins_later=self.begins_later)
        self.losses.finish()


def _same(token_id: int, other: int) -> bool:
    """Whether two ids are equal, as far as they are known."""
    return token_id == other or REDACTED_ID in (token_id, other)
