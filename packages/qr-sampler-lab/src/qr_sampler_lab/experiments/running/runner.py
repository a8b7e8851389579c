# SPDX-License-Identifier: Apache-2.0
"""Carries the plan of a sealed study out, session after session, and stops by its rule alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qr_sampler_lab.experiments.files.journal import Journal
from qr_sampler_lab.experiments.plan import PlannedRequest, PlannedSession
from qr_sampler_lab.experiments.protocol import Arm, Protocol
from qr_sampler_lab.experiments.results.figures import StudyData
from qr_sampler_lab.experiments.results.observations import LedgerTail
from qr_sampler_lab.experiments.running.engines import Answer, Engine, Question
from qr_sampler_lab.experiments.running.stop_rule import StopRule, is_due

__all__ = ["Assignment", "SessionRunner", "begun_sessions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Everything that the plan of a study refers to."""

    protocol: Protocol
    """The protocol."""
    sessions: Sequence[PlannedSession]
    """The plan."""
    arms: Mapping[str, str]
    """Name of the arm by alias, of all phases."""
    prompts: Mapping[str, str]
    """Text of each prompt by file."""
    ledgers: Path
    """Directory of the ledgers."""

    def arm(self, alias: str) -> Arm:
        """Returns the arm of an alias."""
        return self.protocol.arm(self.arms[alias])

    def question(self, request: PlannedRequest) -> Question:
        """Returns what an engine is asked for a request."""
        labels = {
            "qr_request_key": request.request_key,
            "qr_trial": str(request.session),
            "qr_condition": request.alias,
        }
        return Question(
            key=request.request_key,
            prompt=self.prompts[request.prompt],
            options={**self.arm(request.alias).request_options, **labels},
            tokens=request.tokens,
            fixed_length=self.protocol.design.fixed_length,
        )

    def main_arms(self) -> dict[str, str]:
        """Returns the names of the arms by alias, of the randomised blocks alone."""
        randomised = {
            request.alias
            for session in self.sessions
            if session.phase == "main"
            for request in session.requests
        }
        return {alias: arm for alias, arm in self.arms.items() if alias in randomised}


class SessionRunner:
    """Makes the sessions of a study that have not begun yet.

    Every session is in the journal before its first request, and again when the engine has
    answered. A session that was begun and never ended, because something crashed, counts with what
    it has emitted and is not repeated.

    Args:
        assignment: The study.
        journal: Its journal.
        at_once: Most requests that are served together; never fewer than one session.
        on_progress: Called with the numbers of requests done and planned.
        on_session: Called with the arms of each session before it begins.
    """

    def __init__(
        self,
        assignment: Assignment,
        journal: Journal,
        *,
        at_once: int = 32,
        on_progress: Callable[[int, int], object] = lambda done, total: None,
        on_session: Callable[[PlannedSession], object] = lambda session: None,
    ) -> None:
        self._assignment = assignment
        self._journal = journal
        self._at_once = at_once
        self._on_progress, self._on_session = on_progress, on_session
        self._data = StudyData(assignment.protocol, assignment.main_arms(), assignment.sessions)
        self._tail = LedgerTail(assignment.ledgers)
        self._rule = StopRule(self._data, assignment.sessions)
        self._position = 0
        """Index of the first session that is neither begun nor passed over."""

    @property
    def stopped_after(self) -> int | None:
        """The block after which the study stops before its maximum, ``None`` without one."""
        return self._rule.stopped_after

    def run(self, engine: Engine, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Makes what is left to do; returns whether that was all.

        Args:
            engine: Answers the requests.
            interrupted: Asked between sessions whether to leave the rest for later.
        """
        begun = begun_sessions(self._journal)
        self._look(max(begun, default=-1))
        sessions = self._assignment.sessions
        total = sum(len(session.requests) for session in sessions)
        done = sum(len(sessions[number].requests) for number in begun)
        while batch := self._next(begun):
            if interrupted():
                return False
            self._make(engine, batch)
            self._look(batch[-1].number)
            done += sum(len(session.requests) for session in batch)
            self._on_progress(done, total)
        return True

    def _next(self, begun: set[int]) -> list[PlannedSession]:
        """Returns the sessions that come next and are served together."""
        batch: list[PlannedSession] = []
        requests = 0
        sessions = self._assignment.sessions
        while self._position < len(sessions):
            session = sessions[self._position]
            if session.number not in begun and is_due(session, self._rule.stopped_after):
                requests += len(session.requests)
                if batch and (requests > self._at_once or not self._shares_batches(session)):
                    break
                batch.append(session)
            self._position += 1
        return batch

    def _shares_batches(self, session: PlannedSession) -> bool:
        """Whether a session may be made together with the one before it."""
        # A participant has one intention at a time, and a block may be the last.
        by_request = self._assignment.protocol.design.unit == "request"
        return by_request and session.phase == "main" and not self._rule.looks_at_blocks

    def _make(self, engine: Engine, batch: Sequence[PlannedSession]) -> None:
        for session in batch:
            self._on_session(session)
            self._journal.session_begun(
                session.number, requests=[request.request_key for request in session.requests]
            )
        requests = [request for session in batch for request in session.requests]
        answers = engine.answer([self._assignment.question(request) for request in requests])
        by_key = {answer.key: answer for answer in answers}
        for session in batch:
            self._journal.session_ended(session.number, **_counts(session, by_key))

    def _look(self, number: int) -> None:
        """Reads what the ledgers have got, where the rule needs it."""
        if self._rule.looks_at_blocks:
            self._data.add(self._tail.new())
            self._rule.session_is_over(number)


def begun_sessions(journal: Journal) -> set[int]:
    """Returns the numbers of the sessions that a journal has begun."""
    return {
        entry.values["session"]
        for entry in journal.entries()
        if entry.kind == "session" and entry.values["state"] == "begun"
    }


def _counts(session: PlannedSession, answers: Mapping[str, Answer]) -> dict[str, Any]:
    """Returns the numbers of requests and of tokens of a session by alias."""
    requests: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for request in session.requests:
        requests[request.alias] += 1
        tokens[request.alias] += len(answers[request.request_key].token_ids)
    return {"requests": requests, "tokens": tokens}
