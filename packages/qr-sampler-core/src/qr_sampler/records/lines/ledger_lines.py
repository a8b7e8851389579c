# SPDX-License-Identifier: Apache-2.0
"""From entries to the lines of the ledger.

A draw is numbered and a sequence named in a line of its own, before the first line that refers to
it; what has been written of them is remembered here. Steps convert nothing: the thread that writes
does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from operator import attrgetter
from typing import Any, Final
from weakref import WeakKeyDictionary, finalize

from qr_sampler.records import DiscardRecord, GenesisRecord, Record
from qr_sampler.records.clocks import clock_line
from qr_sampler.records.entries import (
    DiscardEntry,
    DrawnNumber,
    Entry,
    NamedSequence,
    RecordedDiscard,
    RecordedDraw,
    RecordedToken,
    SequenceEnd,
    SequenceRecord,
    TokenEntry,
)
from qr_sampler.records.line_kinds import DiscardLine, EndLine, TokenLine
from qr_sampler.records.lines.forms import (
    draw_line,
    fields_of,
    line_of_record,
    sequence_line,
    with_places,
)
from qr_sampler.records.lines.token_run import Line, TokenRun, expanded, packed
from qr_sampler.records.sidecars import Sidecar
from qr_sampler.sampling.columns import StepColumns

__all__ = ["LedgerLines", "Line"]

_INTRODUCTIONS: Final = frozenset({"draw", "sequence"})
"""Kinds of lines to which others refer."""

_STEP_OF: Final = attrgetter("step")


class LedgerLines:
    """Makes the lines of one run. For the use of one thread.

    Args:
        genesis: What the first line of every file says.
        sidecars: Those who hear of sequences and draws just before their lines are made.
    """

    def __init__(self, genesis: GenesisRecord, sidecars: Sequence[Sidecar] = ()) -> None:
        self._genesis = genesis
        self._sidecars = sidecars
        self._file = 0
        """Counts the files of the run."""
        self._draws = 0
        """How many draws have been numbered."""
        self._numbered: WeakKeyDictionary[RecordedDraw, list[int]] = WeakKeyDictionary()
        """By draw, its number and the latest file that tells of it."""
        self._named: dict[str, int] = {}
        """By name of a sequence, the latest file that tells of it; as long as there is an object
        of the sequence, which may be named again even after its end."""
        self._latest: tuple[NamedSequence, ...] = ()
        """The sequences of the step that was last told of, and their names."""
        self._latest_names: list[str] = []
        self._lines: list[Line] = []

    def begin_file(self, continues: Mapping[str, Any] | None = None) -> list[Line]:
        """Returns what a file begins with, in which the lines from now on stand.

        It needs no other file: see :meth:`tell_again`.

        Args:
            continues: The file that it continues: its name, its number of lines and its head.
        """
        self.tell_again()
        genesis = {**asdict(self._genesis), "continues": continues}
        return [("genesis", genesis), self.clock()]

    def tell_again(self) -> Counter[str]:
        """Has draws and sequences that are still referred to told of again, as what was is lost.

        Returns:
            The number of those, by kind, that a call of :meth:`of` has told of in vain, as it has
            raised.
        """
        self._file += 1
        lines, self._lines = self._lines, []
        return Counter(kind for kind, _ in lines if kind in _INTRODUCTIONS)

    def clock(self) -> Line:
        """Returns a line with the clocks as they stand."""
        return ("clock", clock_line())

    def of(self, entries: Iterable[Entry]) -> list[Line]:
        """Returns the lines of *entries*, in order."""
        return expanded(self.runs_of(entries))

    def runs_of(self, entries: Iterable[Entry]) -> list[Line]:
        """Returns the same, where one item stands for the tokens of a step that come together."""
        for kind, run in groupby(entries, type):
            if kind is TokenEntry:
                for step, tokens in groupby(run, _STEP_OF):
                    self._add_run(step, tokens)
            else:
                for entry in run:
                    self._add_one(entry)
        # Nothing here keeps sequences alive.
        self._latest = ()
        lines, self._lines = self._lines, []
        return lines

    def _add_run(self, step: StepColumns, tokens: Iterable[Any]) -> None:
        """Adds tokens of one step."""
        _, rows, sequences, positions, outcomes, emitted = zip(*tokens, strict=True)
        draw = self._number(step)
        token_ids, texts = step.token_ids, step.texts
        chosen = None
        if rows != tuple(range(len(token_ids))):
            chosen = rows
            token_ids = [token_ids[row] for row in rows]
            texts = ([texts[0][row] for row in rows], [texts[1][row] for row in rows])
        made = TokenRun(
            draw,
            self._names(sequences),
            list(positions),
            token_ids,
            packed(step.numbers, chosen),
            *texts,
            list(emitted),
            list(outcomes),
        )
        self._lines.append((made.kind, made))

    def _names(self, sequences: tuple[NamedSequence, ...]) -> list[str]:
        """Returns the names of *sequences*, of each of which this file has a line now."""
        # Mostly they are those of the step before.
        if sequences != self._latest:
            for sequence in sequences:
                self._name(sequence)
            self._latest = sequences
            self._latest_names = [sequence.name for sequence in sequences]
        return self._latest_names

    def _add_one(self, entry: Entry) -> None:
        if isinstance(entry, DiscardEntry):
            self._add_discarded_row(entry)
        elif isinstance(entry, SequenceRecord):
            self._add_sequence_record(entry)
        elif isinstance(entry, SequenceEnd):
            self._add_end(entry)
        elif isinstance(entry, RecordedToken):
            self._add_recorded_token(entry)
        elif isinstance(entry, RecordedDiscard):
            self._name(entry.sequence)
            self._add_discard(entry.discard, entry.number)
        elif isinstance(entry, DiscardRecord):
            self._add_discard(entry, None)
        elif isinstance(entry, Record):
            self._lines.append((entry.kind, fields_of(entry)))

    def _add_discarded_row(self, entry: DiscardEntry) -> None:
        step, row, sequence, position, reason = entry
        self._name(sequence)
        source = step.draw
        line = DiscardLine(
            sequence=sequence.name,
            position=position,
            reason=reason,
            draw=self._number(step),
            offset=step.offsets[row],
            source=source.source,
            fallback=source.fallback,
            block_bytes=step.block_bytes[row],
            u=step.u[row],
            wall_time_ns=source.wall_time_ns,
            row_digest=step.row_digests[row],
        )
        self._lines.append((line.kind, line))

    def _add_discard(self, discard: DiscardRecord, number: DrawnNumber | None) -> None:
        told = number is not None and number.draw.logits_ready_ns == discard.t_logits_ns
        line = DiscardLine(
            sequence=discard.sequence,
            position=discard.position,
            reason=discard.reason,
            draw=None if number is None else self._number(number.draw),
            offset=None if number is None else number.offset,
            source=discard.source,
            fallback=discard.fallback,
            block_bytes=discard.block_bytes,
            u=discard.u,
            wall_time_ns=discard.wall_time_ns,
            row_digest=discard.row_digest,
            role=discard.role,
            jit=discard.jit,
            t_logits_ns=None if told else discard.t_logits_ns,
            log_q=discard.log_q,
            unit_ns=discard.unit_ns,
        )
        self._lines.append((line.kind, line))

    def _add_recorded_token(self, entry: RecordedToken) -> None:
        token, sequence = entry.token, entry.sequence
        if sequence is not None:
            self._name(sequence)
        draws = [self._number(number.draw) for number in entry.numbers]
        decided = entry.numbers[entry.deciding] if draws else None
        told = decided is not None and decided.draw.logits_ready_ns == token.t_logits_ns
        usual = "" if sequence is None else sequence.options.parameters.signal_amplifier_type
        line = TokenLine(
            sequence=token.sequence,
            position=token.position,
            token_id=token.token_id,
            draw=None if decided is None else draws[entry.deciding],
            offset=None if decided is None else decided.offset,
            block_bytes=token.block_bytes,
            block_sum=token.block_sum,
            block_ones=token.block_ones,
            u=token.u,
            statistic=token.statistic,
            temperature=token.temperature,
            entropy_nats=token.entropy_nats,
            varentropy_nats2=token.varentropy_nats2,
            rank=token.rank,
            probability=token.probability,
            candidates=token.candidates,
            running_entropy_nats=token.running_entropy_nats,
            lattice_step=token.lattice_step,
            baseline=token.baseline,
            row_digest=token.row_digest,
            emitted=token.emitted,
            outcome=token.outcome,
            role=token.role,
            jit=token.jit,
            uniforms=with_places(token.uniforms, draws, entry.numbers),
            amplifier="" if token.amplifier == usual else token.amplifier,
            t_logits_ns=None if told else token.t_logits_ns,
            row_draw=None if entry.told is None else self._number(entry.told),
        )
        self._lines.append((line.kind, line))

    def _add_sequence_record(self, entry: SequenceRecord) -> None:
        made = entry.made
        self._name(entry.sequence)
        self._lines.append((made.kind, line_of_record(made)))

    def _add_end(self, end: SequenceEnd) -> None:
        """Adds the end of a sequence, unless nothing has ever been recorded of it."""
        name = end.sequence.name
        if name not in self._named:
            return
        self._name(end.sequence)
        line = EndLine(name, end.tokens, end.reason, end.link, end.wall_time_ns)
        self._lines.append((line.kind, line))

    def _name(self, sequence: NamedSequence) -> None:
        """Adds the line of a sequence if this file has none yet."""
        name = sequence.name
        if self._named.get(name) == self._file:
            return
        if name not in self._named:
            finalize(sequence, self._named.pop, name, None).atexit = False
        self._named[name] = self._file
        for sidecar in self._sidecars:
            sidecar.sequence(sequence)
        self._lines.append(("sequence", sequence_line(sequence)))

    def _number(self, draw: RecordedDraw) -> int:
        """Returns the number of a draw, and adds its line if this file has none yet."""
        known = self._numbered.get(draw)
        if known is None:
            known = self._numbered[draw] = [self._draws, -1]
            self._draws += 1
        number, file = known
        if file != self._file:
            known[1] = self._file
            for sidecar in self._sidecars:
                sidecar.draw(number, draw)
            self._lines.append(("draw", draw_line(number, draw)))
        return number
