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

import numpy as np

from qr_sampler import (
    ComponentError,
    ConfigError,
    EntropyUnavailableError,
    QRSamplerError,
)
from qr_sampler.host import Entry, RowGroup, RowGroups, serve_or_split
from qr_sampler_tsd.uniforms import BYTES_PER_UNIFORM
from qr_sampler_tsd.verification import verify_block, verify_tokens
from qr_sampler_tsd.verification.verdict import Verdict, token_of
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.sequences import RequestRows, Sequences
from qr_sampler_vllm.tsd.verification.contract import Verified
from qr_sampler_vllm.tsd.verification.draft_runs import UniformShare, VerifiedStep
from qr_sampler_vllm.tsd.verification.proposals import Proposal, draw_proposals
from qr_sampler_vllm.tsd.verification.step_uniforms import NumbersDraw, StepUniforms
from qr_sampler_vllm.tsd.verification.target_laws import TargetLaws

__all__ = ["Canonical"]

_RULES = {"token": verify_tokens, "block": verify_block}


class Canonical:
    """Draws drafts from proposals and verifies them with the exact proposal distribution.

    Args:
        session: What the engine samples with.
        sequences: Its sequences.
        verifier: ``token`` or ``block``.

    Raises:
        ConfigError: When a source does not deliver bytes.
    """

    def __init__(self, session: EngineSession, sequences: Sequences, verifier: str) -> None:
        for name in session.settings.selectable_sources:
            if session.source(name).integrates:
                raise ConfigError(
                    f"the source {name!r} delivers uniform numbers, and QR_TSD_MODE=canonical "
                    "makes its own from bytes; choose a source of bytes, or exact_match"
                )
        self._session = session
        self._pending = sequences.pending
        self._verify = _RULES[verifier]
        # Every row takes as many numbers as any other.
        self._groups = RowGroups(by_size=False)

    def drafts(self, proposer: Any, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """Returns a draw from the proposals of each request."""
        proposals = draw_proposals(self._session, proposer, requests)
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
        for share in shares:
            self._judge(share, verified)
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
            error = self._attempt(logits, step, part, shares)
            if error is not None:
                self._session.raise_if_told_to(error)
            return error

        def give_up(part: RowGroup, failure: QRSamplerError) -> None:
            self._session.give_up([step.rows.sequences[index] for index in part.indices], failure)
            self._groups.forget()

        serve_or_split(group, lambda whole: whole.apart(step.rows.sequences), attempt, give_up)

    def _attempt(
        self, logits: Any, step: VerifiedStep, group: RowGroup, shares: list[UniformShare]
    ) -> QRSamplerError | None:
        """Draws once for the rows of *group*; returns why that has failed, if it has."""
        source = self._session.source(group.source)
        rows = group.rows.with_running_entropy(
            [step.rows.sequences[index].running_entropy.value for index in group.indices]
        )
        lines = [step.rows.lines[index] for index in group.indices]
        try:
            laws = TargetLaws(_on_host(logits, lines), rows)
            runs = step.runs(laws, group.indices)
            total = sum(run.budget for run in runs.values())
            if not total:
                return None
            draw = source.draw(BYTES_PER_UNIFORM * total)
        except (EntropyUnavailableError, ComponentError) as error:
            return error
        first, ready_ns = 0, laws.plan.logits_ready_ns
        origin = NumbersDraw.of(draw, ready_ns, keep_bytes=self._session.settings.ledger_blocks)
        for owner, run in runs.items():
            shares.append(UniformShare(owner, run, draw.data, origin, first))
            first += run.budget
        return None

    def _do_without(self, logits: Any, step: VerifiedStep, index: int) -> None:
        """Discards the drafts of a request whose first row could not be drawn for."""
        request, verified = step.requests[index], step.verified
        verified.records.extend(step.proposals[index].discards("not_verified"))
        outcome = self._session.without_entropy(
            logits, request.first, request.owner, request.position
        )
        verified.tokens[index].append(outcome.token_id)
        verified.records.extend(request.owner.sampled(outcome))

    def _judge(self, share: UniformShare, verified: Verified) -> None:
        """Decides the tokens of one request; *verified* gets them and the records they settle."""
        run = share.run
        uniforms = StepUniforms(share.data, share.origin, share.first, run.budget)
        p = [run.laws.probs(row) for row in run.rows[: run.budget]]
        buffer = np.empty(p[0].size)
        length = run.length
        if not length:
            verdict = Verdict((token_of(p[0], uniforms, buffer),), 0, 1.0)
        else:
            # Without a row after the last draft a repeated one makes up the number; it is not used.
            after = p if run.has_bonus else [*p, p[-1]]
            q, drafts = run.proposal.laws[:length], run.proposal.drafts[:length]
            verdict = self._verify(after, q, drafts, uniforms, buffer)
        emitted = run.emitted(verdict, uniforms.used)
        verified.tokens[share.owner].extend(token.token_id for token in emitted)
        for token in emitted:
            verified.records.extend(run.sequence.sampled(token))
        spent = verdict.accepted + (verdict.accepted < length)
        verified.records.extend(run.proposal.discards("rejected_draft", spent))
        first_unused = share.first + run.budget - uniforms.left
        verified.records.extend(run.unused(share.origin, first_unused, uniforms.left, "not_needed"))


def _on_host(logits: Any, lines: list[int]) -> Any:
    """Returns *lines* of the tensor *logits* as an array; waits until they have been computed."""
    import torch

    return logits[torch.as_tensor(lines, device=logits.device)].cpu().numpy()
