# SPDX-License-Identifier: Apache-2.0
"""Exact match: each row gets a token chosen after its logits; a draft is accepted if it equals it.

So each emitted token is decided by bytes that were requested after its logits were complete, and
the text is that of an engine that decides one token per step with the same bytes, whatever the
drafts are. One request to the source serves all rows of a step; the bytes for the rows after the
first rejected draft are discarded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qr_sampler.host import ChosenToken, Entry, Outcome, StepRows
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.request_shapes import RequestShapes, fitted
from qr_sampler_vllm.tsd.sequences import RequestRows
from qr_sampler_vllm.tsd.verification.contract import Verified

__all__ = ["ExactMatch", "likeliest"]


class ExactMatch:
    """Lets the sampling pipeline choose a token for every row.

    Args:
        session: What the engine samples with.
    """

    def __init__(self, session: EngineSession) -> None:
        self._session = session

    def verify(self, logits: Any, requests: list[RequestRows]) -> Verified:
        """Returns the outcome of all rows. Arguments as in :class:`Verification`."""
        step = _step(requests)
        outcomes = iter(self._session.decide(logits, step) if step.lines else ())
        verified = Verified([], [])
        for request in requests:
            rows = [next(outcomes) for _ in _deciding(request)]
            tokens, records = _matched(request, rows)
            verified.tokens.append(tokens)
            verified.records.extend(records)
        return verified

    def drafts(self, proposer: Any, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """Returns the most probable tokens of the proposals; needs no randomness."""
        return [
            likeliest(proposer, one.state, one.shapes, one.position, one.length) for one in requests
        ]


def likeliest(
    proposer: Any, state: Any, shapes: RequestShapes, position: int, length: int
) -> list[int]:
    """Returns the most probable tokens of the proposals; needs no randomness.

    Args:
        proposer: A ``Proposer``.
        state: Its state after the tokens so far.
        shapes: Of the request.
        position: Index of the token that the first draft is for.
        length: Most drafts.
    """
    drafts: list[int] = []
    for index in range(length):
        if index:
            state = proposer.advance(state, drafts[-1])
        psi = fitted(proposer, state, shapes, position + index)
        # Best first; empty when a mask leaves the tail only.
        head = None if psi is None else psi.law().ids
        if head is None or not head.size:
            break
        drafts.append(int(head[0]))
    return drafts


def _deciding(request: RequestRows) -> range:
    """Returns the rows of *request* that get a token, counted from its first."""
    decides = request.emits and request.sequence is not None
    return range(len(request.drafts) + 1 if decides else 0)


def _step(requests: list[RequestRows]) -> StepRows:
    """Returns all rows that get a token, each following the previous one of its request."""
    step, follows = StepRows(), []
    for request in requests:
        for row in _deciding(request):
            follows.append(len(step.lines) - 1 if row else -1)
            step.lines.append(request.first + row)
            step.sequences.append(request.owner)
            step.positions.append(request.position + row)
    if max(follows, default=-1) >= 0:
        step.follows = follows
    return step


def _matched(request: RequestRows, rows: list[Outcome]) -> tuple[list[int], list[Entry]]:
    """Returns the tokens up to the first that is not its draft, and the records of all rows."""
    tokens: list[int] = []
    records: list[Entry] = []
    accepted = True
    for row, outcome in enumerate(rows):
        if not accepted:
            records += request.owner.wasted(outcome, "rejected_draft")
            continue
        tokens.append(outcome.token_id)
        accepted = _agrees(request, row, outcome)
        records += request.owner.sampled(_named(request, row, outcome, accepted))
    return tokens, records


def _agrees(request: RequestRows, row: int, outcome: Outcome) -> bool:
    return (
        isinstance(outcome, ChosenToken)
        and row < len(request.drafts)
        and outcome.token_id == request.drafts[row]
    )


def _named(request: RequestRows, row: int, outcome: Outcome, accepted: bool) -> Outcome:
    """Returns *outcome* with the fate of the draft in its place."""
    if not isinstance(outcome, ChosenToken):
        return outcome
    drafted = row < len(request.drafts)
    became = "accepted" if accepted else "corrected" if drafted else "bonus"
    return outcome._replace(draft_outcome=became)
