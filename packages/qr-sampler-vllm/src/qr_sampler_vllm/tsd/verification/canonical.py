# SPDX-License-Identifier: Apache-2.0
"""The canonical mode: drafts are drawn from proposals F(psi), then accepted or corrected.

The text follows the law that the requests demand, and a draft stands with the probability that its
proposal overlaps with that law. But the number that draws a draft precedes the logits: such a token
is not decided just in time, and its record says so.

After the logits one request to the source brings a number for each draft's test and one for the
token after the drafts that stand; what a verifier does not use is discarded. A draft that the
scheduler has cut off, because a grammar forbids it or a step was full, is verified like any other
if the row before it is there: to leave it out would favour the drafts that were not cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple, cast

import numpy as np

from qr_sampler import (
    ComponentError,
    ConfigError,
    DiscardRecord,
    EntropyDraw,
    EntropyUnavailableError,
    QRSamplerError,
    Record,
)
from qr_sampler.host import RowGroup, RowGroups, StepRows, TokenSequence, serve_or_split
from qr_sampler_tsd.uniforms import BYTES_PER_UNIFORM
from qr_sampler_tsd.verification import verify_block, verify_tokens
from qr_sampler_tsd.verification.verdict import Verdict, token_of
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.sequences import RequestRows, Sequences
from qr_sampler_vllm.tsd.verification.contract import Verified
from qr_sampler_vllm.tsd.verification.proposals import Proposal, draw_proposals
from qr_sampler_vllm.tsd.verification.step_uniforms import StepUniforms, Used
from qr_sampler_vllm.tsd.verification.target_laws import TargetLaws
from qr_sampler_vllm.tsd.verification.verified_token import RowFacts, VerifiedToken

__all__ = ["Canonical"]

_RULES = {"token": verify_tokens, "block": verify_block}


class _Block(NamedTuple):
    """The drafts of one request and the rows that judge them."""

    request: RequestRows
    sequence: TokenSequence
    proposal: Proposal
    laws: TargetLaws
    rows: list[int]
    """Indices of its decidable rows among those of the laws."""

    @property
    def length(self) -> int:
        """Number of drafts that can be judged: each by the row in its own place."""
        return min(len(self.proposal.drafts), len(self.rows))

    @property
    def has_bonus(self) -> bool:
        """Whether there is a row after the last draft."""
        return len(self.rows) > self.length

    @property
    def budget(self) -> int:
        """The most numbers that judging takes."""
        return self.length + 1


class _Share(NamedTuple):
    """The numbers that judge one block, among those of a draw."""

    owner: int
    """Index of the request."""
    block: _Block
    draw: EntropyDraw
    first: int
    """Index of the first of its numbers; there are as many as the budget of the block."""

    def discards(self, reason: str) -> list[DiscardRecord]:
        """Returns the records of its bytes when they judge nothing."""
        return _unused(self.block, self.draw, self.block.budget, reason)


class Canonical:
    """Draws drafts from proposals and verifies them with the true proposal law.

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
        made = draw_proposals(self._session, proposer, requests)
        self._pending.update(made)
        return [list(made[one.name].drafts) if one.name in made else [] for one in requests]

    def verify(self, logits: Any, requests: list[RequestRows]) -> Verified:
        """Returns what becomes of all rows. Arguments as in :class:`Verification`."""
        verified = Verified([[] for _ in requests], [])
        owners = [index for index, one in enumerate(requests) if one.emits and one.sequence]
        proposals = {index: self._take(requests[index], verified.records) for index in owners}
        step = _Step(requests, proposals, verified)
        shares: list[_Share] = []
        try:
            for group in self._groups.of(step.rows):
                self._draw_for(logits, step, group, shares)
        except BaseException:
            # What was drawn until then decides no token of a step that is not finished.
            lost = [record for one in shares for record in one.discards("step_failed")]
            unverified = [
                one for each in proposals.values() for one in each.discards("step_failed")
            ]
            self._session.record([*verified.records, *lost, *unverified])
            raise
        for share in shares:
            self._judge(share, verified)
        for index in owners:
            if not verified.tokens[index]:
                self._do_without(logits, step, index)
        return verified

    def _take(self, request: RequestRows, records: list[Record]) -> Proposal:
        """Returns the drafts that wait for the logits of *request*, an empty one if none do."""
        sequence = request.owner
        nothing = Proposal(sequence, request.position)
        # Nobody else has drafts waiting.
        proposal = cast(Proposal, self._pending.pop(request.name, nothing))
        fits = proposal.position == request.position
        if fits and proposal.drafts[: len(request.drafts)] == request.drafts:
            return proposal
        # vLLM fills in drafts of its own where none were asked for.
        records += proposal.discards("not_verified")
        return nothing

    def _draw_for(self, logits: Any, step: _Step, group: RowGroup, shares: list[_Share]) -> None:
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
        self, logits: Any, step: _Step, group: RowGroup, shares: list[_Share]
    ) -> QRSamplerError | None:
        """Draws once for the rows of *group*; returns why that has failed, if it has."""
        source = self._session.source(group.source)
        rows = group.rows.with_running_entropy(
            [step.rows.sequences[index].running_entropy.value for index in group.indices]
        )
        lines = [step.rows.lines[index] for index in group.indices]
        try:
            laws = TargetLaws(_on_host(logits, lines), rows)
            blocks = step.blocks(laws, group.indices)
            total = sum(block.budget for block in blocks.values())
            if not total:
                return None
            draw = source.draw(BYTES_PER_UNIFORM * total)
        except (EntropyUnavailableError, ComponentError) as error:
            return error
        first = 0
        for owner, block in blocks.items():
            shares.append(_Share(owner, block, draw, first))
            first += block.budget
        return None

    def _do_without(self, logits: Any, step: _Step, index: int) -> None:
        """Gives up the drafts of a request in whose first row nothing could be drawn."""
        request, verified = step.requests[index], step.verified
        verified.records.extend(step.proposals[index].discards("not_verified"))
        outcome = self._session.without_entropy(
            logits, request.first, request.owner, request.position
        )
        verified.tokens[index].append(outcome.token_id)
        verified.records.extend(request.owner.sampled(outcome))

    def _judge(self, share: _Share, verified: Verified) -> None:
        """Decides the tokens of one request, and adds them and what they settle to *verified*."""
        block = share.block
        uniforms = StepUniforms(share.draw, share.first, block.budget)
        p = [block.laws.probs(row) for row in block.rows[: block.budget]]
        buffer = np.empty(p[0].size)
        length = block.length
        if not length:
            verdict = Verdict((token_of(p[0], uniforms, buffer),), 0, 1.0)
        else:
            # Without a row after the last draft none is looked at but to make up the number.
            after = p if block.has_bonus else [*p, p[-1]]
            q, drafts = block.proposal.laws[:length], block.proposal.drafts[:length]
            verdict = self._verify(after, q, drafts, uniforms, buffer)
        emitted = _emitted(block, verdict, uniforms.used)
        verified.tokens[share.owner].extend(token.token_id for token in emitted)
        for token in emitted:
            verified.records.extend(block.sequence.sampled(token))
        spent = verdict.accepted + (verdict.accepted < length)
        verified.records.extend(block.proposal.discards("rejected_draft", spent))
        verified.records.extend(_unused(block, share.draw, uniforms.left, "not_needed"))


class _Step:
    """The rows of a step that judge something.

    Args:
        requests: The requests of the batch.
        proposals: By index of the request, its drafts; those that emit something have an entry.
        verified: What has become of them, to be filled in.
    """

    def __init__(
        self, requests: list[RequestRows], proposals: dict[int, Proposal], verified: Verified
    ) -> None:
        self.requests, self.proposals, self.verified = requests, proposals, verified
        self.rows = StepRows()
        self._owners: list[int] = []
        follows: list[int] = []
        for index, proposal in proposals.items():
            request = requests[index]
            for place in range(1 + (len(request.drafts) if proposal.drafts else 0)):
                follows.append(len(follows) - 1 if place else -1)
                self.rows.lines.append(request.first + place)
                self.rows.sequences.append(request.owner)
                self.rows.positions.append(request.position + place)
                self._owners.append(index)
        if max(follows, default=-1) >= 0:
            self.rows.follows = follows

    def blocks(self, laws: TargetLaws, indices: list[int]) -> dict[int, _Block]:
        """Returns, by index of the request, what can be judged.

        Args:
            laws: Of the rows at *indices*.
            indices: Some of the rows of the step, those of one request in order.
        """
        by_owner: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            by_owner.setdefault(self._owners[index], []).append(row)
        found: dict[int, _Block] = {}
        for owner, own in by_owner.items():
            request = self.requests[owner]
            rows = list(takewhile(laws.__contains__, own))
            if rows:
                found[owner] = _Block(request, request.owner, self.proposals[owner], laws, rows)
        return found


def _on_host(logits: Any, lines: list[int]) -> Any:
    """Returns *lines* of the tensor *logits* as an array; waits until they have been computed."""
    import torch

    return logits[torch.as_tensor(lines, device=logits.device)].cpu().numpy()


def _emitted(block: _Block, verdict: Verdict, used: list[Used]) -> list[VerifiedToken]:
    """Returns the tokens of a verdict with the numbers that each is accounted.

    The number that drew a draft goes with the draft. Those that judged the block, and the one that
    chose the token after the drafts that stand, go with the last token.
    """
    accepted, length, proposal = verdict.accepted, block.length, block.proposal
    tokens = list(verdict.tokens)
    if accepted == length and not block.has_bonus:
        tokens.pop()
    emitted = []
    for place, token_id in enumerate(tokens):
        own = tuple(proposal.uniforms[place : place + 1] if place < length else ())
        is_last = place == len(tokens) - 1
        stands = place < accepted
        emitted.append(
            VerifiedToken(
                token_id=token_id,
                position=block.request.position + place,
                outcome="accepted" if stands else "corrected" if place < length else "bonus",
                row=_facts(block, place, token_id),
                uniforms=(*own, *used) if is_last else own,
                deciding=own[0] if stands else used[-1],
            )
        )
    return emitted


def _facts(block: _Block, place: int, token_id: int) -> RowFacts:
    laws, row = block.laws, block.rows[place]
    plan, index = laws.plan, laws.index(row)
    running = float(plan.rows.running_entropy[index])
    return RowFacts(
        t_logits_ns=plan.logits_ready_ns,
        temperature=float(plan.temperature.temperature[index]),
        entropy_nats=float(plan.temperature.entropy_nats[index]),
        varentropy_nats2=float(plan.temperature.varentropy_nats2[index]),
        running_entropy_nats=None if np.isnan(running) else running,
        rank=laws.rank(row, token_id),
        probability=float(laws.probs(row)[token_id]),
        candidates=laws.candidates(row),
    )


def _unused(block: _Block, draw: EntropyDraw, count: int, reason: str) -> list[DiscardRecord]:
    """Returns the record of *count* numbers that were drawn for *block* and judge nothing."""
    if not count:
        return []
    return [
        DiscardRecord(
            request_key=block.sequence.request_key,
            sequence=block.sequence.name,
            position=block.request.position,
            reason=reason,
            source=draw.source,
            fallback=draw.fallback,
            block_bytes=BYTES_PER_UNIFORM * count,
            u=None,
            t_logits_ns=block.laws.plan.logits_ready_ns,
            t_request_ns=draw.requested_ns,
            t_received_ns=draw.received_ns,
            wall_time_ns=draw.wall_time_ns,
        )
    ]
