# SPDX-License-Identifier: Apache-2.0
"""The records of a run, each told to the rungs that it concerns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.rederivation.rung import ModelUnderAudit, Rederivation
from qr_sampler_cli.audit.rungs.anchors import Anchors
from qr_sampler_cli.audit.rungs.chain import FileChain
from qr_sampler_cli.audit.rungs.clocks import Clocks
from qr_sampler_cli.audit.rungs.completeness import Completeness
from qr_sampler_cli.audit.rungs.consistency import Consistency
from qr_sampler_cli.audit.rungs.emitted import ReceivedTokens
from qr_sampler_cli.audit.rungs.open_items import OpenDraw
from qr_sampler_cli.audit.rungs.witnesses import Evidence, Witnesses
from qr_sampler_cli.audit.schema.run_lines import Anchor, Clock, Continued, Gap, Genesis
from qr_sampler_cli.audit.schema.token_lines import (
    Discard,
    Draw,
    Emission,
    End,
    Forced,
    Token,
    Undecided,
)
from qr_sampler_cli.audit.schema.token_lines import (
    Sequence as SequenceLine,
)

__all__ = ["RunRecords"]

_DONE_TO_FILES: Final = ("cut", "moved", "removed")
"""Reasons of a gap that are about the file which its own file continues."""


class RunRecords:
    """Takes in the records of all files of a run.

    Args:
        rungs: The ladder.
        received: What clients have received, if that is known.
        evidence: What the ledger is compared with.
        under_audit: The model that tokens are derived from again, if there is one.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        received: ReceivedTokens | None,
        evidence: Evidence,
        under_audit: ModelUnderAudit | None = None,
    ) -> None:
        self._whole, complete, in_time, consistent, witnessed, derived = rungs
        self._complete = Completeness(complete, received)
        self._draws = self._complete.draws
        self._clocks = Clocks(in_time)
        self._consistent = Consistency(consistent)
        self._commitments = self._consistent.commitments
        self._witnesses = Witnesses(witnessed, evidence)
        self.anchors = Anchors(witnessed, evidence.outside)
        """What others say of the times of lines."""
        self._rederived = derived
        self._derivation = Rederivation(derived, under_audit)
        self.run_id = ""
        """Name of the run."""
        self._other_end: tuple[int, str] | None = None
        """Why the file does not continue the one before, unless a gap says what was done to that
        which it continues."""
        self._told_lost = 0
        self._last = 0
        self._name = Path()
        self._before: FileChain | None = None
        self._before_name: Path | None = None
        self._handlers: dict[type, Callable[[Any, int], object]] = {
            Token: self._token,
            Draw: self._draw,
            SequenceLine: self._complete.begin_sequence,
            End: self._end,
            Discard: self._discard,
            Forced: self._unchosen,
            Undecided: self._unchosen,
            Emission: self._complete.settle,
            Genesis: self._genesis,
            Gap: self._gap,
            Clock: self._clock,
            Anchor: self.anchors.anchor,
        }
        self._deriving = self._derivation.handlers

    @property
    def tokens(self) -> int:
        """Number of tokens so far."""
        return self._complete.tokens

    def begin_file(self, name: Path, before: FileChain | None, before_name: Path | None) -> None:
        """Goes on with another file; the one before it, if any, is over."""
        self._name, self._before, self._before_name = name, before, before_name
        self._complete.part += 1
        closed = before is not None and before.closed is not None
        self._consistent.stored.begin_file(name, self._last, closed=closed)
        self.anchors.begin_file(name)
        self._derivation.begin_file(name)

    def take(self, record: Any, place: int) -> None:
        """Takes in a record."""
        self._last = place
        if self._other_end is not None and not isinstance(record, Clock | Gap):
            self._fail_continuation()
        handler = self._handlers.get(type(record))
        if handler is not None:
            handler(record, place)
        deriving = self._deriving.get(type(record))
        if deriving is not None:
            deriving(record, place)

    def redacted(self, place: int) -> None:
        """Takes note of a line that lacks what tells of tokens."""
        self._commitments.redacted(place)
        self._witnesses.redacted(place)
        self._rederived.cannot_say("tokens of redacted lines, whose ids are left out", place)

    def _genesis(self, line: Genesis, place: int) -> None:
        if self.run_id and line.run_id != self.run_id:
            # Rung 1 has said so; what follows belongs to nothing that came before.
            self._complete.begins_later = True
        self.run_id = line.run_id
        self._judge_continuation(line, place)
        self._clocks.begin(line)
        self._consistent.begin(line, place)
        self.anchors.genesis(line, place)

    def _clock(self, line: Clock, place: int) -> None:
        self._clocks.clock(line, place)
        self.anchors.clock(line, place)

    def _judge_continuation(self, line: Genesis, place: int) -> None:
        before, continues = self._before, line.continues
        if continues is None:
            if before is not None:
                self._whole.fail(place, f"run {line.run_id[:40]!r} begins a second time")
        elif before is None or self._is_another(before, continues):
            self._whole.cannot_say(
                f"what is in {continues.file[:100]!r}, which this file continues"
            )
            self._complete.begin_in_between()
        elif (continues.lines, continues.head) != (before.lines, before.head):
            what = (
                f"it continues {continues.file[:100]!r} after {continues.lines} lines with the "
                f"head {continues.head}, and {self._before_name} has {before.lines} lines and the "
                f"head {before.head}"
            )
            self._other_end = (place, what)

    def _is_another(self, before: FileChain, continues: Continued) -> bool:
        """Returns whether a file in between, which may be in an archive, is not here."""
        following = before.closed.continued_in if before.closed is not None else None
        return (
            following is not None
            and following != self._name.name
            and (continues.lines, continues.head) != (before.lines, before.head)
        )

    def _fail_continuation(self) -> None:
        if self._other_end is not None:
            self._whole.fail(*self._other_end)
            self._other_end = None

    def _gap(self, line: Gap, place: int) -> None:
        self._complete.part += 1
        self._consistent.stored.gap(line.missing)
        continues_it = self._before is not None and self._other_end is None
        if line.reason in _DONE_TO_FILES and self._other_end is not None:
            self._other_end = None
            self._whole.cannot_say(
                f"what was in a file that was {line.reason} while it was being written", place
            )
        # The lines that were moved are in the file before, if that is here.
        if line.reason == "moved" and continues_it:
            return
        self._complete.losses.tell(line.missing)
        if line.reason != "moved":
            self._told_lost += sum(line.missing.values())

    def _judge_losses(self, lost: int) -> None:
        if lost != self._told_lost:
            self._whole.fail(
                self._last, f"the close says that {lost} lines are lost, and gaps {self._told_lost}"
            )

    def _draw(self, line: Draw, place: int) -> None:
        if line.draw not in self._draws.open and self._commitments.tells_again(line):
            return
        stored = self._consistent.stored.draw(line, place)
        opened = self._draws.begin(line, place, self._complete.part)
        if (known := self._draws.open.get(line.draw)) is not None:
            known.stored = stored
        if opened is not None:
            self._clocks.draw(line, place)
            self._consistent.draw(line, place)
            self._commitments.draw(opened)
            self._witnesses.draw(line, place)

    def _token(self, line: Token, place: int) -> None:
        sequence = self._complete.take(
            line.sequence, line.position, line.token_id, line.emitted, place
        )
        draw = self._drawn(line, place)
        if draw is not None:
            self._clocks.token(sequence, draw, line, place)
        self._consistent.token(sequence, draw, line, place)
        if draw is not None and not draw.left:
            self._commitments.used_up(draw)

    def _drawn(self, line: Token, place: int) -> OpenDraw | None:
        """Accounts for the bytes of a token; returns the draw that decided it, if it is here."""
        if line.uniforms is None:
            if line.draw is None:
                self._complete.without_draw(place)
                return None
            return self._draws.spend(line.draw, line.offset, line.block_bytes, place)
        draw = None if line.draw is None else self._draws.open.get(line.draw)
        if sum(each.bytes for each in line.uniforms) != line.block_bytes:
            self._complete.miscounted(place)
        blocks: list[bytes | None] = []
        for each in line.uniforms:
            if each.draw is None:
                self._complete.without_draw(place)
                blocks.append(None)
                continue
            spent = self._draws.spend(each.draw, each.offset, each.bytes, place)
            stored = None if spent is None else spent.stored
            blocks.append(None if stored is None else stored.block(each.offset, each.bytes))
        self._consistent.numbers(line, blocks, place)
        return draw

    def _discard(self, line: Discard, place: int) -> None:
        if line.draw is None:
            return
        draw = self._draws.spend(line.draw, line.offset, line.block_bytes, place)
        if draw is not None:
            self._commitments.discard(draw, line)
            if not draw.left:
                self._commitments.used_up(draw)

    def _unchosen(self, line: Forced | Undecided, place: int) -> None:
        self._complete.take(line.sequence, line.position, line.token_id, line.emitted, place)

    def _end(self, line: End, place: int) -> None:
        sequence = self._complete.end(line, place)
        if sequence is not None:
            self._commitments.end(sequence, line, place)

    def finish(self, chain: FileChain | None) -> None:
        """Judges what waits, when there are no more lines."""
        self._fail_continuation()
        closed = chain.closed if chain is not None else None
        if closed is not None and closed.continued_in:
            self._whole.cannot_say(
                f"what is in {closed.continued_in[:100]!r}, which goes on from it"
            )
        elif closed is not None and not self._complete.begins_later:
            self._judge_losses(closed.lost)
        self._complete.finish(closed=closed is not None and not closed.continued_in)
        self._clocks.finish()
        self._consistent.finish(self._last, closed=closed is not None)
        self._witnesses.finish()
        self.anchors.finish()
        self._derivation.finish()
