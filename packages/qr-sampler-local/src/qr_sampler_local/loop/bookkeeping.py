# SPDX-License-Identifier: Apache-2.0
"""What becomes of the tokens of a loop: emitted, dropped or unknown, until each text is over."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from qr_sampler.host import Entry, Outcome, SamplingSession, StepRows, TokenSequence
from qr_sampler_local.loop.interrupts import Uninterrupted
from qr_sampler_local.loop.lifetimes import ClosedAtExit
from qr_sampler_local.loop.sequence import LocalSequence

__all__ = ["SequenceKeeper"]


class SequenceKeeper(ClosedAtExit):
    """Keeps the records of the sequences of a loop.

    Args:
        session: What the loop samples with.
    """

    def __init__(self, session: SamplingSession) -> None:
        super().__init__(session)
        self._open: dict[int, LocalSequence] = {}
        """Those whose end has to be recorded and is not, by identity."""
        self._ending: list[LocalSequence] = []
        """Those among them whose last token has been decided, and may still be dropped."""
        self.closed = False
        """Whether it is closed, and takes no further sequences."""

    def emitted(self, sequence: LocalSequence, arrived: int | None = None) -> None:
        """Takes note that tokens of *sequence* have reached whoever reads.

        Args:
            sequence: The sequence.
            arrived: Number of its tokens that have, the first ones; all so far if not given.

        Raises:
            ValueError: When it is of another sampler.
        """
        with self.lock, Uninterrupted():
            self._check_own(sequence)
            self._record(self._emitted(sequence, arrived))

    def dropped(self, sequence: LocalSequence, count: int, reason: str = "not_emitted") -> None:
        """Takes note that the latest tokens of *sequence* have reached nobody.

        They are discards in the records, and the sequence goes on from the token before them.

        Args:
            sequence: The sequence.
            count: Number of its latest tokens.
            reason: Why, for the records.

        Raises:
            ValueError: When some of these tokens are known to have been emitted, or the sequence is
                closed or of another sampler.
        """
        with self.lock, Uninterrupted():
            self._check_own(sequence)
            keep = len(sequence.tokens) - count
            settled = len(sequence.tokens) - sequence.unsettled
            if count < 0 or keep < settled:
                raise ValueError(
                    f"count={count}: {settled} of the {len(sequence.tokens)} tokens of "
                    f"{sequence!r} are known to have been emitted; drop only later ones"
                )
            if count and sequence.core is not None:
                self._record(sequence.core.drop(reason, keep=keep))
                self._ending = [each for each in self._ending if each is not sequence]
            del sequence.tokens[keep:]

    def close(self, sequence: LocalSequence | None = None, *, reason: str = "departed") -> None:
        """Ends *sequence*, or without one everything, with the ledger.

        Args:
            sequence: The sequence. One that has ended by itself ends as it has, all of it emitted.
            reason: ``"stop"`` when all its tokens have been emitted and it is complete;
                ``"departed"`` when it is given up, and its latest tokens may or may not have been
                emitted.

        Raises:
            ValueError: When it is of another sampler, or for another reason.
        """
        if reason not in ("departed", "stop"):
            raise ValueError(f"reason={reason!r}: expected 'departed' or 'stop'")
        if sequence is None:
            self._close_all()
            return
        with self.lock, Uninterrupted():
            self._check_own(sequence)
            if reason == "stop" or sequence.ended:
                self._record(self._emitted(sequence))
            if not sequence.closed:
                self._record([] if sequence.core is None else sequence.core.end(reason))
                self._forget(sequence)

    @property
    def open(self) -> list[LocalSequence]:
        """The sequences whose end has to be recorded and is not."""
        return list(self._open.values())

    def settled(self) -> list[Entry]:
        """Returns nothing: every step records what it settles."""
        return []

    def forget(self) -> None:
        """Leaves all sequences to the process that this one was forked from; they end here."""
        # Another thread may have held it, which does not exist here.
        self.lock = threading.RLock()
        for sequence in self.open:
            self._forget(sequence)

    def open_sequences(self) -> list[TokenSequence]:
        """Returns what the core keeps of the sequences whose end is not recorded."""
        return [each.core for each in self.open if each.core is not None]

    def _record(self, entries: list[Entry]) -> None:
        if entries:
            self.session.record(entries)

    def _check_own(self, sequence: LocalSequence) -> None:
        if sequence.owner is not self:
            raise ValueError(f"{sequence!r} is of another sampler; use that one")

    def _begun(self, sequence: LocalSequence) -> None:
        if sequence.core is not None:
            self._open[id(sequence)] = sequence
            self._has_more_to_record(True)

    def _begun_step(
        self, sequences: Sequence[LocalSequence]
    ) -> tuple[StepRows, list[LocalSequence]]:
        """Returns the rows of a step that get a token, and whose they are.

        Records what is settled because the loop goes on.
        """
        settled = self._gone_on_after_ends() if self._ending else []
        step, stepped = StepRows(), []
        for line, sequence in enumerate(sequences):
            core = sequence.core
            if core is None or core.ended or sequence.closed:
                continue
            settled += core.go_on(sequence.steps_in_flight)
            step.lines.append(line)
            step.sequences.append(core)
            step.positions.append(len(sequence.tokens))
            stepped.append(sequence)
        self._record(settled)
        return step, stepped

    def _take(
        self,
        stepped: Sequence[LocalSequence],
        cores: Sequence[TokenSequence],
        outcomes: Sequence[Outcome],
    ) -> None:
        """Gives sequences the tokens that a step has decided."""
        for sequence, core, outcome in zip(stepped, cores, outcomes, strict=True):
            core.sampled(outcome, hold_end=True)
            sequence.outcome = outcome
            sequence.tokens.append(core.tokens[-1])
            if core.failure:
                # It may have no end token, and would go on without entropy.
                core.ended = True
            if core.ended:
                sequence.thread = threading.get_ident()
                self._ending.append(sequence)

    def _gone_on_after_ends(self) -> list[Entry]:
        """Returns the ends of sequences that steps of this thread have ended before this one."""
        entries: list[Entry] = []
        thread = threading.get_ident()
        for sequence in [each for each in self._ending if each.thread == thread]:
            if sequence.core is not None:
                entries += sequence.core.go_on(sequence.steps_in_flight)
            if not sequence.unsettled:
                entries += self._emitted(sequence)
        return entries

    def _emitted(self, sequence: LocalSequence, arrived: int | None = None) -> list[Entry]:
        """Returns the records that are settled when tokens of *sequence* have arrived."""
        core = sequence.core
        if core is None or sequence.closed:
            return []
        entries = core.settle(arrived)
        if core.ended and not core.unsettled:
            self._forget(sequence)
        return entries

    def _forget(self, sequence: LocalSequence) -> None:
        sequence.closed = True
        self._open.pop(id(sequence), None)
        self._ending = [each for each in self._ending if each is not sequence]
        if not self._open:
            self._has_more_to_record(False)

    def _close_all(self) -> None:
        """Records the ends of all sequences, and ends the ledger."""
        with self.lock:
            if self.closed:
                return
            with Uninterrupted():
                self.closed = True
                for sequence in self.open:
                    if sequence.core is not None:
                        self._record(sequence.core.end("closed"))
                    self._forget(sequence)
            super().close()
