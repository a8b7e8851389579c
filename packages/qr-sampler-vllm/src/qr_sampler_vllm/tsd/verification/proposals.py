# SPDX-License-Identifier: Apache-2.0
"""Drafts drawn from proposals, with the distribution and the number that drew each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from qr_sampler import RAISE_ERROR, EntropyUnavailableError
from qr_sampler.host import RecordedDiscard, TokenSequence
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.uniforms import BYTES_PER_UNIFORM, Role
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.request_shapes import fitted
from qr_sampler_vllm.tsd.verification.drafting_unit import DraftingUnit
from qr_sampler_vllm.tsd.verification.step_uniforms import NumbersDraw, StepUniforms, Used
from qr_sampler_vllm.tsd.verification.verified_token import discards_of, rest_of

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
    """The numbers that drew each, several of them as one entry."""

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


class _Wanted(NamedTuple):
    """A sequence that is to get drafts, with what its first one is drawn from."""

    request: DraftRequest
    law: HeadTailLaw


def draw_proposals(
    session: EngineSession,
    proposer: Any,
    requests: Sequence[DraftRequest],
    unit: DraftingUnit | None = None,
) -> dict[str, Proposal]:
    """Returns the drafts of each request by its name, with one draw per source.

    As many numbers are drawn as the unit can need, and those that it does not need are discarded.
    If a source cannot deliver, nothing is drafted: the fate of the sequence is decided when its
    token is due.

    Args:
        session: What the engine samples with.
        proposer: A ``Proposer``.
        requests: The sequences that are to get drafts.
        unit: Draws them; F(psi) itself if not given.

    Raises:
        EntropyUnavailableError: When the source fails and the operator chose to stop then.
    """
    unit = DraftingUnit() if unit is None else unit
    by_source: dict[str, list[_Wanted]] = {}
    for request in requests:
        psi = fitted(proposer, request.state, request.shapes, request.position)
        if psi is not None:
            own = by_source.setdefault(request.sequence.options.source, [])
            own.append(_Wanted(request, psi.law()))
    proposals: dict[str, Proposal] = {}
    lost: list[RecordedDiscard] = []
    for name, sharing in by_source.items():
        budget = unit.budget(max(wanted.law.ids.size + 1 for wanted in sharing))
        total = budget * sum(wanted.request.length for wanted in sharing)
        if not total:
            continue
        try:
            draw = session.source(name).draw(BYTES_PER_UNIFORM * total)
        except EntropyUnavailableError as error:
            if session.settings.fallback_mode == RAISE_ERROR:
                # The step is not finished, so what other sources have delivered is not used.
                for proposal in proposals.values():
                    lost += proposal.discards("step_failed")
                session.record(lost)
                raise
            logger.error("%s; nothing is drafted in this step", error)
            continue
        first = 0
        origin = NumbersDraw.of(draw, None, keep_bytes=session.settings.ledger_blocks)
        for wanted in sharing:
            request = wanted.request
            uniforms = StepUniforms(draw.data, origin, first, budget * request.length)
            proposals[request.name] = _drafted(proposer, wanted, uniforms, unit, lost)
            first += budget * request.length
    if lost:
        session.record(lost)
    return proposals


def _drafted(
    proposer: Any,
    wanted: _Wanted,
    uniforms: StepUniforms,
    unit: DraftingUnit,
    lost: list[RecordedDiscard],
) -> Proposal:
    """Returns the drafts of a request; *lost* gets the records of the numbers that drew none."""
    request = wanted.request
    proposal = Proposal(request.sequence, request.position)
    state, law = request.state, wanted.law
    for index in range(request.length):
        if index:
            state = proposer.advance(state, proposal.drafts[-1])
            psi = fitted(proposer, state, request.shapes, request.position + index)
            if psi is None:
                break
            law = psi.law()
        drawn = unit.draw(law, uniforms)
        if drawn.token_id is None or drawn.used is None:
            failed = [drawn.used] if drawn.used else []
            lost += discards_of(failed, request.sequence, request.position + index, "unit_failed")
            break
        proposal.drafts.append(drawn.token_id)
        proposal.laws.append(law)
        proposal.uniforms.append(drawn.used)
    following = request.position + len(proposal.drafts)
    lost += rest_of(
        uniforms.place,
        uniforms.left,
        request.sequence,
        following,
        "not_needed",
        role=Role.PROPOSAL,
    )
    return proposal
