# SPDX-License-Identifier: Apache-2.0
"""The list of everything that a study does, one request after another, under aliases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from qr_sampler_lab.experiments.blinding import MAIN, Phase
from qr_sampler_lab.experiments.order import shuffled
from qr_sampler_lab.experiments.protocol import Protocol, ScheduledRun

__all__ = ["PlannedRequest", "PlannedSession", "planned_sessions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRequest:
    """One request of a study."""

    number: int
    """Its number in the study, from 0."""
    session: int
    """Number of its session."""
    phase: Phase
    """What it belongs to."""
    block: int | None
    """Number of its block, ``None`` outside of the blocks."""
    alias: str
    """Alias of its arm."""
    prompt: str
    """File of its prompt."""
    tokens: int
    """Most tokens of its answer."""

    @property
    def request_key(self) -> str:
        """What the records call it."""
        return f"request-{self.number:06}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSession:
    """Requests that are made together: a block, or one arm if sessions are randomised."""

    number: int
    """Its number in the study, from 0."""
    phase: Phase
    """What it belongs to."""
    block: int | None
    """Number of its block, ``None`` outside of the blocks."""
    requests: tuple[PlannedRequest, ...]
    """Its requests, in order."""


def planned_sessions(
    protocol: Protocol, aliases: Mapping[tuple[Phase, str], str], key: bytes
) -> list[PlannedSession]:
    """Returns the sessions of a study, in order.

    Each block starts from the aliases of its arms in alphabetical order, each as often as
    ``per_block`` says, and is shuffled under the label ``block {number}``. The n-th request of an
    alias has the n-th prompt, from the first again after the last.

    Args:
        protocol: What is planned.
        aliases: Alias of every arm in every phase.
        key: What :func:`~qr_sampler_lab.experiments.order.order_key` returned.
    """
    sessions = _Sessions(protocol)
    for phase, block, session in _drafts(protocol, aliases, key):
        sessions.add(phase, block, session)
    return sessions.planned


def _drafts(
    protocol: Protocol, aliases: Mapping[tuple[Phase, str], str], key: bytes
) -> Iterator[tuple[Phase, int | None, list[str]]]:
    """Yields phase, block, and the aliases of the requests of every session."""
    design = protocol.design
    yield from _scheduled(protocol, aliases, "before", None)
    start = sorted(
        alias
        for (phase, arm), alias in aliases.items()
        if phase == MAIN
        for _ in range(protocol.arm(arm).per_block)
    )
    for block in range(design.blocks):
        order = shuffled(start, key, f"block {block}")
        if design.unit == "request":
            yield MAIN, block, order
        else:
            for alias in order:
                yield MAIN, block, [alias] * design.requests_per_session
        yield from _scheduled(protocol, aliases, "every_block", block)
    yield from _scheduled(protocol, aliases, "after", None)


def _scheduled(
    protocol: Protocol, aliases: Mapping[tuple[Phase, str], str], at: str, block: int | None
) -> Iterator[tuple[Phase, int | None, list[str]]]:
    """Yields the sessions of the schedule at one place."""
    runs: list[ScheduledRun] = [run for run in protocol.schedule if run.at == at]
    for run in runs:
        yield run.phase, block, [aliases[run.phase, run.arm]] * run.requests


class _Sessions:
    """Numbers sessions and requests, and gives each its prompt."""

    def __init__(self, protocol: Protocol) -> None:
        self._prompts = [prompt.file for prompt in protocol.prompts]
        self._tokens = protocol.design.tokens_per_request
        self._occurred: Counter[str] = Counter()
        self._requests = 0
        self.planned: list[PlannedSession] = []

    def add(self, phase: Phase, block: int | None, aliases: list[str]) -> None:
        """Appends a session whose requests have the given aliases."""
        number = len(self.planned)
        requests = tuple(self._request(number, phase, block, alias) for alias in aliases)
        session = PlannedSession(number=number, phase=phase, block=block, requests=requests)
        self.planned.append(session)

    def _request(self, session: int, phase: Phase, block: int | None, alias: str) -> PlannedRequest:
        occurrence = self._occurred[alias]
        self._occurred[alias] += 1
        self._requests += 1
        return PlannedRequest(
            number=self._requests - 1,
            session=session,
            phase=phase,
            block=block,
            alias=alias,
            prompt=self._prompts[occurrence % len(self._prompts)],
            tokens=self._tokens,
        )
