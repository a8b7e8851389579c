# SPDX-License-Identifier: Apache-2.0
"""The canonical mode: drafts are drawn from proposals F(psi), then accepted or corrected.

The text follows the distribution that the requests specify, and a draft is accepted with the
probability by which its proposal overlaps with it. But the number that draws a draft precedes the
logits: such a token is not decided just in time, and its record says so.

After the logits one request to the source delivers a number for testing each draft and one for the
token after the accepted drafts; what a verifier does not use is discarded. A draft that the
scheduler has cut off, because a grammar forbids it or a step was full, is verified like any other
if the row before it is there: leaving it out would favour the drafts that were not cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from qr_sampler import (
    ComponentError,
    ConfigError,
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    QRSamplerError,
    StepPlan,
    StepPlanner,
    step_commitment,
)
from qr_sampler.host import Entry, RowGroup, RowGroups, serve_or_split
from qr_sampler.sampling.plan_digests import digests_of_rows
from qr_sampler_accel import TensorLogits
from qr_sampler_tsd import TSUAdapter
from qr_sampler_tsd.uniforms import BYTES_PER_UNIFORM
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.sequences import RequestRows, Sequences
from qr_sampler_vllm.tsd.verification.contract import Verified
from qr_sampler_vllm.tsd.verification.draft_runs import DraftRun, UniformShare, VerifiedStep
from qr_sampler_vllm.tsd.verification.drafting_unit import DraftingUnit
from qr_sampler_vllm.tsd.verification.judging import RULES, JudgedRun, judge_runs
from qr_sampler_vllm.tsd.verification.proposals import Proposal, draw_proposals
from qr_sampler_vllm.tsd.verification.step_uniforms import NumbersDraw
from qr_sampler_vllm.tsd.verification.target_laws import TargetLaws

__all__ = ["Canonical"]


class Canonical:
    """Draws drafts from proposals and verifies them with the exact proposal distribution.

    Args:
        session: What the engine samples with.
        sequences: Its sequences.
        verifier: ``token`` or ``block``.
        most_rows: Largest number of rows of a step, for which an accelerator's memory is taken in
            the first one; without it, for each step what it needs.
        unit: Draws the drafts; F(psi) itself if not given.

    Raises:
        ConfigError: When a source does not deliver bytes.
    """

    def __init__(
        self,
        session: EngineSession,
        sequences: Sequences,
        verifier: str,
        most_rows: int | None = None,
        unit: TSUAdapter | None = None,
    ) -> None:
        for name in session.settings.selectable_sources:
            if session.source(name).integrates:
                raise ConfigError(
                    f"the source {name!r} delivers uniform numbers, and QR_TSD_MODE=canonical "
                    "makes its own from bytes; choose a source of bytes, or exact_match"
                )
        self._session = session
        self._pending = sequences.pending
        self._rule = RULES[verifier]
        self._unit = DraftingUnit(unit)
        self._access = TensorLogits(most_rows, forces=False)
        self._planners: dict[str, StepPlanner] = {}
        """By source: an accelerator's laws are valid until its planner plans again."""
        # Every row takes as many numbers as any other.
        self._groups = RowGroups(by_size=False)

    def drafts(self, proposer: Any, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """Returns a draw from the proposals of each request."""
        proposals = draw_proposals(self._session, proposer, requests, self._unit)
        self._pending.update(proposals)
        return [
            list(proposals[request.name].drafts) if request.name in proposals else []
            for request in requests
        ]

    def verify(self, logits: Any, requests: list[RequestRows]) -> Verified:
        """Returns the outcome of all rows. Arguments as in :class:`Verification`."""
        verified = Verified([[] for _ in requests], [])
        owners = [
            index for index, request in enumerate(requests) if request.emits and request.sequence
        ]
        proposals = {index: self._take(requests[index], verified.records) for index in owners}
        step = VerifiedStep(requests, proposals, verified)
        shares: list[UniformShare] = []
        if self._session.end_unrecorded(step.rows.sequences):
            self._groups.forget()
        try:
            for group in self._groups.of(step.rows):
                self._draw_for(logits, step, group, shares)
        except BaseException:
            # The step is not finished, so what was drawn until then decides no token.
            drawn: list[UniformShare | Proposal] = [*shares, *proposals.values()]
            lost = [record for each in drawn for record in each.discards("step_failed")]
            self._session.record([*verified.records, *lost])
            raise
        self._judge(shares, verified)
        for index in owners:
            if not verified.tokens[index]:
                self._do_without(logits, step, index)
        return verified

    def _take(self, request: RequestRows, records: list[Entry]) -> Proposal:
        """Returns the drafts that wait for the logits of *request*, or an empty proposal."""
        sequence = request.owner
        nothing = Proposal(sequence, request.position)
        # Only this mode leaves drafts waiting.
        proposal = cast(Proposal, self._pending.pop(request.name, nothing))
        fits = proposal.position == request.position
        if fits and proposal.drafts[: len(request.drafts)] == request.drafts:
            return proposal
        # vLLM fills in drafts of its own where none were asked for.
        records += proposal.discards("not_verified")
        return nothing

    def _draw_for(
        self, logits: Any, step: VerifiedStep, group: RowGroup, shares: list[UniformShare]
    ) -> None:
        """Draws for the rows of *group* and appends what each request gets to *shares*."""

        def attempt(part: RowGroup) -> QRSamplerError | None:
            planner = self._planner(group.source, logits, shared=part is group)
            error = self._attempt(logits, step, part, planner, shares)
            if error is not None:
                self._session.raise_if_told_to(error)
            return error

        def give_up(part: RowGroup, failure: QRSamplerError) -> None:
            self._session.give_up([step.rows.sequences[index] for index in part.indices], failure)
            self._groups.forget()

        serve_or_split(group, lambda whole: whole.apart(step.rows.sequences), attempt, give_up)

    def _planner(self, source: str, logits: Any, *, shared: bool) -> StepPlanner:
        """Returns the planner of a source, or a new one for some of its rows."""
        if not shared:
            return self._access.planner(logits)
        if source not in self._planners:
            self._planners[source] = self._access.planner(logits)
        return self._planners[source]

    def _attempt(
        self,
        logits: Any,
        step: VerifiedStep,
        group: RowGroup,
        planner: StepPlanner,
        shares: list[UniformShare],
    ) -> QRSamplerError | None:
        """Draws once for the rows of *group*; returns why that has failed, if it has."""
        source = self._session.source(group.source)
        rows = group.rows.with_running_entropy(
            [step.rows.sequences[index].running_entropy.value for index in group.indices]
        )
        lines = [step.rows.lines[index] for index in group.indices]
        try:
            plan = self._access.plan(planner, logits, lines, rows)
            laws = TargetLaws(plan, planner.selector)
            runs = step.runs(laws, group.indices)
            total = sum(run.budget for run in runs.values())
            if not total:
                return None
            digests = self._digests(source, plan, step, group, runs)
            told = [digest for own in digests.values() for digest in own]
            draw = _drawn(source, BYTES_PER_UNIFORM * total, told)
        except (EntropyUnavailableError, ComponentError) as error:
            return error
        keep_bytes = self._session.settings.ledger_blocks
        origin = NumbersDraw.of(draw, plan.logits_ready_ns, rows_told=told, keep_bytes=keep_bytes)
        first = 0
        for owner, run in runs.items():
            own = digests.get(owner, [])
            shares.append(UniformShare(owner, run, draw.data, origin, first, own))
            first += run.budget
        return None

    def _digests(
        self,
        source: EntropySource,
        plan: StepPlan,
        step: VerifiedStep,
        group: RowGroup,
        runs: dict[int, DraftRun],
    ) -> dict[int, list[bytes]]:
        """Returns what *source* is told of the rows of each run; nothing if it takes nothing."""
        if not source.commits:
            return {}
        of_rows = digests_of_rows(plan, self._session.contexts(step.rows, group))
        return {
            owner: [of_rows[run.laws.index(row)] for row in run.told] for owner, run in runs.items()
        }

    def _do_without(self, logits: Any, step: VerifiedStep, index: int) -> None:
        """Discards the drafts of a request whose first row could not be drawn for."""
        request, verified = step.requests[index], step.verified
        verified.records.extend(step.proposals[index].discards("not_verified"))
        outcome = self._session.without_entropy(
            logits, request.first, request.owner, request.position
        )
        verified.tokens[index].append(outcome.token_id)
        verified.records.extend(request.owner.sampled(outcome))

    def _judge(self, shares: list[UniformShare], verified: Verified) -> None:
        """Decides the tokens of all requests; *verified* gets them and the records they settle."""
        by_laws: dict[TargetLaws, list[UniformShare]] = {}
        for share in shares:
            by_laws.setdefault(share.run.laws, []).append(share)
        for laws, own in by_laws.items():
            for share, judged in zip(own, judge_runs(laws, own, self._rule), strict=True):
                _settle(share, judged, verified)


def _drawn(source: EntropySource, size: int, told: Sequence[bytes]) -> EntropyDraw:
    """Returns *size* bytes, asked for with what is told of the rows that they decide."""
    return source.committed_draw(size, step_commitment(told)) if told else source.draw(size)


def _settle(share: UniformShare, judged: JudgedRun, verified: Verified) -> None:
    """Adds the tokens of one request to *verified*, and the records that they settle."""
    run, uniforms = share.run, judged.uniforms
    emitted = share.emitted(judged.tokens, judged.accepted, uniforms.used, judged.facts)
    verified.tokens[share.owner].extend(token.token_id for token in emitted)
    for token in emitted:
        verified.records.extend(run.sequence.sampled(token))
    spent = judged.accepted + (judged.accepted < run.length)
    verified.records.extend(run.proposal.discards("rejected_draft", spent))
    first_unused = share.first + run.budget - uniforms.left
    verified.records.extend(run.unused(share.origin, first_unused, uniforms.left, "not_needed"))
