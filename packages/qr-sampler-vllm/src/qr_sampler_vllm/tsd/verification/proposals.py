# SPDX-License-Identifier: Apache-2.0
"""Drafts drawn from proposals, with the distribution and the number that drew each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qr_sampler import RAISE_ERROR, EntropyUnavailableError
from qr_sampler.host import RecordedDiscard, TokenSequence
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.uniforms import BYTES_PER_UNIFORM, Role
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.request_shapes import fitted
from qr_sampler_vllm.tsd.verification.step_uniforms import NumbersDraw, StepUniforms, Used
from qr_sampler_vllm.tsd.verification.verified_token import discards_of

__all__ = ["Proposal", "draw_proposals"]

logger = logging.getLogger("vllm.qr_sampler")


@dataclass(slots=True, eq=False)
class Proposal:
    """The drafts of one sequence."""

    sequence: TokenSequence
    """The sequence."""
    position: int
    """Index of the token that the first draft is for."""
    drafts: list[int] = field(default_factory=list)
    """The tokens."""
    laws: list[HeadTailLaw] = field(default_factory=list)
    """The distribution that each was drawn from."""
    uniforms: list[Used] = field(default_factory=list)
    """The number that drew each; behind them those that were drawn for nothing."""

    def spare(self) -> list[RecordedDiscard]:
        """Returns the records of the numbers that were drawn for drafts that do not exist."""
        position = self.position + len(self.drafts)
        beyond = self.uniforms[len(self.drafts) :]
        return discards_of(beyond, self.sequence, position, "not_needed")

    def discards(self, reason: str, first: int = 0) -> list[RecordedDiscard]:
        """Returns the records of the numbers whose drafts were not verified.

        Args:
            reason: Why.
            first: Index of the first of them.
        """
        return [
            record
            for offset in range(first, len(self.drafts))
            for record in discards_of(
                self.uniforms[offset : offset + 1], self.sequence, self.position + offset, reason
            )
        ]


def draw_proposals(
    session: EngineSession, proposer: Any, requests: Sequence[DraftRequest]
) -> dict[str, Proposal]:
    """Returns the drafts of each request by its name, with one draw per source.

    If a source cannot deliver, nothing is drafted: the fate of the sequence is decided when its
    token is due.

    Args:
        session: What the engine samples with.
        proposer: A ``Proposer``.
        requests: The sequences that are to get drafts.

    Raises:
        EntropyUnavailableError: When the source fails and the operator chose to stop then.
    """
    by_source: dict[str, list[DraftRequest]] = {}
    for request in requests:
        by_source.setdefault(request.sequence.options.source, []).append(request)
    proposals: dict[str, Proposal] = {}
    spare: list[RecordedDiscard] = []
    for name, sharing in by_source.items():
        total = sum(request.length for request in sharing)
        try:
            draw = session.source(name).draw(BYTES_PER_UNIFORM * total)
        except EntropyUnavailableError as error:
            if session.settings.fallback_mode == RAISE_ERROR:
                # The step is not finished, so what other sources have delivered is not used.
                lost = [
                    record
                    for proposal in proposals.values()
                    for record in proposal.discards("step_failed")
                ]
                session.record([*spare, *lost])
                raise
            logger.error("%s; nothing is drafted in this step", error)
            continue
        first = 0
        origin = NumbersDraw.of(draw, None, keep_bytes=session.settings.ledger_blocks)
        for request in sharing:
            uniforms = StepUniforms(draw.data, origin, first, request.length)
            proposal = _drafted(proposer, request, uniforms)
            proposals[request.name] = proposal
            spare += proposal.spare()
            first += request.length
    if spare:
        session.record(spare)
    return proposals


def _drafted(proposer: Any, request: DraftRequest, uniforms: StepUniforms) -> Proposal:
    proposal = Proposal(request.sequence, request.position, uniforms=uniforms.used)
    state = request.state
    for index in range(request.length):
        if index:
            state = proposer.advance(state, proposal.drafts[-1])
        psi = fitted(proposer, state, request.shapes, request.position + index)
        if psi is None:
            break
        law = psi.law()
        proposal.laws.append(law)
        proposal.drafts.append(law.select_one(uniforms.draw_one(Role.PROPOSAL)))
    while uniforms.left:
        uniforms.draw_one(Role.PROPOSAL)
    return proposal
