# SPDX-License-Identifier: Apache-2.0
"""A token decided by several numbers, and the records of these numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qr_sampler import DiscardRecord, TokenSamplingRecord, link_digest
from qr_sampler.host import (
    DrawnNumber,
    RecordedDiscard,
    RecordedToken,
    Remembered,
    TokenSequence,
)
from qr_sampler.temperature import rounded
from qr_sampler_tsd.uniforms import BYTES_PER_UNIFORM, Role
from qr_sampler_vllm.tsd.verification.step_uniforms import NumbersDraw, Used

__all__ = ["AMPLIFIER", "RowFacts", "VerifiedToken", "discards_of", "rest_of"]

AMPLIFIER: Final = "upper53"
"""Name in records of the map from eight bytes to a number: their upper 53 bits, little-endian."""

_LATTICE_STEP: Final = 2.0**-53


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFacts:
    """Facts about a token's row of logits."""

    t_logits_ns: int
    """When the logits were complete."""
    temperature: float
    """Temperature used."""
    entropy_nats: float
    """Entropy at temperature 1."""
    varentropy_nats2: float
    """Varentropy at temperature 1."""
    running_entropy_nats: float | None
    """Running mean of the entropy of the earlier tokens; ``None`` for the first."""
    rank: int
    """Rank of the token."""
    probability: float
    """Probability of the token under the distribution that the request specifies."""
    candidates: int
    """Number of tokens that truncation kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """An accepted draft, or the token that follows the accepted drafts."""

    token_id: int
    """The token."""
    position: int
    """Its index among the tokens of its sequence."""
    outcome: str
    """As in the records: accepted, corrected or bonus."""
    row: RowFacts
    """The facts about its row."""
    uniforms: tuple[Used, ...]
    """All numbers that are accounted to it, in the order of their use."""
    deciding: Used
    """The one among them that selected it."""
    digest: bytes = b""
    """What a source was told of its row; empty if it was told nothing."""
    told: NumbersDraw | None = None
    """The draw whose request told of the row, if any did."""

    @property
    def remembered(self) -> Remembered:
        """What its sequence remembers of it."""
        (seen,) = rounded(np.array([self.row.entropy_nats]))
        digest = self.digest
        link = link_digest(digest, self.token_id, self.deciding.u) if digest else b""
        return Remembered(self.token_id, float(seen), link)

    def entry(self, sequence: TokenSequence, *, emitted: bool | None) -> RecordedToken:
        """Returns what is to be recorded of the token as one of *sequence*."""
        draw, options, row = self.deciding.draw, sequence.options, self.row
        data = b"".join(used.data for used in self.uniforms)
        fallbacks = [used.draw for used in self.uniforms if used.draw.fallback]
        record = TokenSamplingRecord(
            request_key=sequence.request_key,
            sequence=sequence.name,
            position=self.position,
            token_id=self.token_id,
            u=self.deciding.u,
            statistic=self.deciding.u,
            lattice_step=_LATTICE_STEP,
            temperature=row.temperature,
            entropy_nats=row.entropy_nats,
            varentropy_nats2=row.varentropy_nats2,
            running_entropy_nats=row.running_entropy_nats,
            rank=row.rank,
            probability=row.probability,
            candidates=row.candidates,
            amplifier=AMPLIFIER,
            baseline="",
            temperature_strategy=options.parameters.temperature_strategy,
            source=draw.source,
            source_distribution=draw.origin.distribution,
            source_version=draw.origin.version,
            fallback=bool(fallbacks),
            fallback_reason=fallbacks[0].fallback_reason if fallbacks else "",
            device_id=draw.device_id,
            device_timestamp_ns=draw.device_timestamp_ns,
            block_bytes=len(data),
            block_sum=sum(data),
            block_ones=sum(byte.bit_count() for byte in data),
            draw_bytes=self.deciding.origin.draw_bytes,
            draw_requests=draw.requests,
            t_logits_ns=row.t_logits_ns,
            t_request_ns=draw.requested_ns,
            t_received_ns=draw.received_ns,
            wall_time_ns=draw.wall_time_ns,
            trial=options.trial,
            condition=options.condition,
            commitment="" if self.told is None else self.told.commitment,
            row_digest=self.digest.hex(),
            echo_verified=None if self.told is None else self.told.draw.commitment_echoed,
            signature_verified=draw.signature_verified,
            role=self.deciding.role.value,
            outcome=self.outcome,
            jit=self.deciding.jit,
            uniforms=[used.as_dict() for used in self.uniforms],
            emitted=emitted,
        )
        return RecordedToken(
            record,
            fallbacks[0].fallback_from if fallbacks else "",
            sequence,
            tuple(used.place for used in self.uniforms),
            self.uniforms.index(self.deciding),
            None if self.told is self.deciding.origin else self.told,
        )

    def discards(self, sequence: TokenSequence, reason: str) -> list[RecordedDiscard]:
        """Returns the records of its numbers if *sequence* has not emitted it."""
        return discards_of(
            self.uniforms, sequence, self.position, reason, t_logits_ns=self.row.t_logits_ns
        )


def discards_of(
    uniforms: Sequence[Used],
    sequence: TokenSequence,
    position: int,
    reason: str,
    *,
    t_logits_ns: int | None = None,
) -> list[RecordedDiscard]:
    """Returns the records of numbers that were not used for an emitted token.

    Args:
        uniforms: The numbers.
        sequence: The sequence that they were drawn for.
        position: Index of the token that they were drawn for.
        reason: Why they were not used.
        t_logits_ns: When the logits were complete, if they were.
    """
    return [
        RecordedDiscard(
            DiscardRecord(
                request_key=sequence.request_key,
                sequence=sequence.name,
                position=position,
                reason=reason,
                source=used.draw.source,
                fallback=used.draw.fallback,
                block_bytes=len(used.data),
                u=used.u,
                t_logits_ns=t_logits_ns,
                t_request_ns=used.draw.requested_ns,
                t_received_ns=used.draw.received_ns,
                wall_time_ns=used.draw.wall_time_ns,
                role=used.role.value,
                jit=used.jit,
                log_q=used.log_q,
                unit_ns=used.unit_ns,
            ),
            sequence,
            used.place,
        )
        for used in uniforms
    ]


def rest_of(
    place: DrawnNumber,
    count: int,
    sequence: TokenSequence,
    position: int,
    reason: str,
    *,
    role: Role | None = None,
    t_logits_ns: int | None = None,
) -> list[RecordedDiscard]:
    """Returns the record of numbers that nothing has used; none if there are none.

    Args:
        place: Where the first of them is.
        count: How many there are.
        sequence: The sequence that they were drawn for.
        position: Index of the token that they were drawn for.
        reason: Why they were not used.
        role: What they were drawn for, if for one thing.
        t_logits_ns: When the logits were complete, if they were.
    """
    if not count:
        return []
    draw = place.draw.draw
    discard = DiscardRecord(
        request_key=sequence.request_key,
        sequence=sequence.name,
        position=position,
        reason=reason,
        source=draw.source,
        fallback=draw.fallback,
        block_bytes=BYTES_PER_UNIFORM * count,
        u=None,
        t_logits_ns=t_logits_ns,
        t_request_ns=draw.requested_ns,
        t_received_ns=draw.received_ns,
        wall_time_ns=draw.wall_time_ns,
        role=None if role is None else role.value,
        jit=role is not Role.PROPOSAL,
    )
    return [RecordedDiscard(discard, sequence, place)]
