# SPDX-License-Identifier: Apache-2.0
"""The drafts of a step with the rows and numbers that judge them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from qr_sampler.host import DrawnNumber, RecordedDiscard, StepRows, TokenSequence
from qr_sampler_tsd.uniforms import BYTES_PER_UNIFORM
from qr_sampler_vllm.tsd.sequences import RequestRows
from qr_sampler_vllm.tsd.verification.contract import Verified
from qr_sampler_vllm.tsd.verification.proposals import Proposal
from qr_sampler_vllm.tsd.verification.step_uniforms import NumbersDraw, StepUniforms, Used
from qr_sampler_vllm.tsd.verification.target_laws import TargetLaws
from qr_sampler_vllm.tsd.verification.verified_token import RowFacts, VerifiedToken, rest_of

__all__ = ["DraftRun", "TokenFacts", "UniformShare", "VerifiedStep"]


class DraftRun(NamedTuple):
    """The drafts of one request and the rows that judge them."""

    request: RequestRows
    sequence: TokenSequence
    proposal: Proposal
    laws: TargetLaws
    rows: list[int]
    """Indices of its decidable rows among those of the laws."""

    @property
    def length(self) -> int:
        """Number of drafts that can be judged, each by the row in its place."""
        return min(len(self.proposal.drafts), len(self.rows))

    @property
    def has_bonus(self) -> bool:
        """Whether there is a row after the last draft."""
        return len(self.rows) > self.length

    @property
    def budget(self) -> int:
        """The largest number of uniforms that judging takes."""
        return self.length + 1

    @property
    def told(self) -> list[int]:
        """Its rows that a request for its numbers tells of."""
        return self.rows[: self.budget]

    def unused(
        self, origin: NumbersDraw, first: int, count: int, reason: str
    ) -> list[RecordedDiscard]:
        """Returns the record of numbers that it did not use.

        Args:
            origin: Their draw.
            first: Index of the first of them in it.
            count: How many there are.
            reason: Why.
        """
        return rest_of(
            DrawnNumber(origin, BYTES_PER_UNIFORM * first),
            count,
            self.sequence,
            self.request.position,
            reason,
            t_logits_ns=self.laws.plan.logits_ready_ns,
        )


class TokenFacts(NamedTuple):
    """What a row says of a token."""

    rank: int
    """Its rank."""
    probability: float
    """Its probability."""


class UniformShare(NamedTuple):
    """The numbers that judge one run, among those of a draw."""

    owner: int
    """Index of the request."""
    run: DraftRun
    data: bytes
    """The bytes of the draw."""
    origin: NumbersDraw
    """What is kept of the draw."""
    first: int
    """Index of the first of its numbers; there are as many as the budget of the run."""
    digests: list[bytes]
    """What the source was told of the rows of the run; empty if it was told nothing."""

    def uniforms(self) -> StepUniforms:
        """Returns the numbers, none of them used."""
        return StepUniforms(self.data, self.origin, self.first, self.run.budget)

    def discards(self, reason: str) -> list[RecordedDiscard]:
        """Returns the records of its bytes if they are not used."""
        return self.run.unused(self.origin, self.first, self.run.budget, reason)

    def emitted(
        self, tokens: Sequence[int], accepted: int, used: list[Used], facts: Sequence[TokenFacts]
    ) -> list[VerifiedToken]:
        """Returns the tokens that the run emits with the numbers accounted to each.

        The number that drew a draft is accounted to the draft. Those that judged the drafts, and
        the one that chose the token after the accepted drafts, are accounted to the last token.

        Args:
            tokens: The accepted drafts, and the token after them if there is one.
            accepted: How many drafts are accepted.
            used: The numbers of the share that were used.
            facts: What their rows say of the tokens.
        """
        run, emitted = self.run, []
        for offset, token_id in enumerate(tokens):
            drafted, is_accepted = offset < run.length, offset < accepted
            drew = tuple(run.proposal.uniforms[offset : offset + 1] if drafted else ())
            is_last = offset == len(tokens) - 1
            emitted.append(
                VerifiedToken(
                    token_id=token_id,
                    position=run.request.position + offset,
                    outcome="accepted" if is_accepted else "corrected" if drafted else "bonus",
                    row=self._facts(offset, facts[offset]),
                    uniforms=(*drew, *used) if is_last else drew,
                    deciding=drew[0] if is_accepted else used[-1],
                    digest=self.digests[offset] if self.digests else b"",
                    told=self.origin if self.digests else None,
                )
            )
        return emitted

    def _facts(self, offset: int, facts: TokenFacts) -> RowFacts:
        laws, row = self.run.laws, self.run.rows[offset]
        plan, index = laws.plan, laws.index(row)
        running = float(plan.rows.running_entropy[index])
        return RowFacts(
            t_logits_ns=plan.logits_ready_ns,
            temperature=float(plan.temperature.temperature[index]),
            entropy_nats=float(plan.temperature.entropy_nats[index]),
            varentropy_nats2=float(plan.temperature.varentropy_nats2[index]),
            running_entropy_nats=None if np.isnan(running) else running,
            rank=facts.rank,
            probability=facts.probability,
            candidates=laws.candidates(row),
        )


class VerifiedStep:
    """The rows of a step that judge drafts or choose tokens.

    Args:
        requests: The requests of the batch.
        proposals: By index of the request, its drafts; requests that emit something have an entry.
        verified: The outcome of the step, to be filled in.
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
            for offset in range(1 + (len(request.drafts) if proposal.drafts else 0)):
                follows.append(len(follows) - 1 if offset else -1)
                self.rows.lines.append(request.first + offset)
                self.rows.sequences.append(request.owner)
                self.rows.positions.append(request.position + offset)
                self._owners.append(index)
        if max(follows, default=-1) >= 0:
            self.rows.follows = follows

    def runs(self, laws: TargetLaws, indices: list[int]) -> dict[int, DraftRun]:
        """Returns the run of each request, by its index.

        Args:
            laws: The distributions of the rows at *indices*.
            indices: Some of the rows of the step, those of one request in order.
        """
        by_owner: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            by_owner.setdefault(self._owners[index], []).append(row)
        runs: dict[int, DraftRun] = {}
        for owner, own in by_owner.items():
            request = self.requests[owner]
            rows = list(takewhile(laws.__contains__, own))
            if rows:
                runs[owner] = DraftRun(request, request.owner, self.proposals[owner], laws, rows)
        return runs
