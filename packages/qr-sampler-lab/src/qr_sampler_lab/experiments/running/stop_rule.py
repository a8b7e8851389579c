# SPDX-License-Identifier: Apache-2.0
"""When a study is over: after all of its blocks, or when the evidence is there."""

from __future__ import annotations

from collections.abc import Sequence

from qr_sampler_lab.experiments.plan import PlannedSession
from qr_sampler_lab.experiments.results.figures import StudyData
from qr_sampler_lab.experiments.results.sequential import e_process_of

__all__ = ["StopRule", "due_sessions", "is_due"]


class StopRule:
    """Follows a study block by block; what it computes is never shown.

    Args:
        data: The tokens so far, which others add to.
        sessions: The plan.
    """

    def __init__(self, data: StudyData, sessions: Sequence[PlannedSession]) -> None:
        self._data = data
        self._process = e_process_of(data.protocol)
        last = {session.block: session.number for session in sessions if session.phase == "main"}
        self._last = [last[block] for block in sorted(b for b in last if b is not None)]
        """Number of the last session of each block."""
        self._judged = 0
        """Number of blocks that are judged."""
        self.stopped_after: int | None = None
        """The block after which no other one follows, if the rule says so."""

    @property
    def looks_at_blocks(self) -> bool:
        """Whether the tokens of a block decide if another one follows."""
        return self._process is not None

    def session_is_over(self, number: int) -> None:
        """Takes note of a session that has ended, or will never end.

        Args:
            number: Its number; all tokens that it will ever have are in the data.
        """
        if self._process is None or self.stopped_after is not None:
            return
        while self._judged < len(self._last) and self._last[self._judged] <= number:
            block = self._judged
            self._judged += 1
            score = self._data.block_score(self._data.protocol.primary, block, self._data.selected)
            if score is not None:
                self._process.add([score])
            if self._process.result().crossed_at is not None:
                self.stopped_after = block
                return


def is_due(session: PlannedSession, stopped_after: int | None) -> bool:
    """Returns whether a study has a session, given the block after which it stops.

    What is scheduled after a block that is not the last, and after the last, stays.
    """
    return stopped_after is None or session.block is None or session.block <= stopped_after


def due_sessions(
    sessions: Sequence[PlannedSession], stopped_after: int | None
) -> list[PlannedSession]:
    """Returns the sessions that a study has, in order."""
    return [session for session in sessions if is_due(session, stopped_after)]
