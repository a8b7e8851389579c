# SPDX-License-Identifier: Apache-2.0
"""Lines that tell of sequences, their draws and their tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from qr_sampler_cli.audit.schema.fields import (
    AnyId,
    Count,
    Digest,
    DigestOrEmpty,
    Nanoseconds,
    Probability,
    SignedNanoseconds,
    Uniform,
)
from qr_sampler_cli.audit.schema.run_lines import ChainedLine

__all__ = [
    "Bypass",
    "Discard",
    "Draw",
    "Emission",
    "End",
    "Forced",
    "ManyIds",
    "Sequence",
    "StopFields",
    "Token",
    "Undecided",
    "UsedUniform",
]


EmittedOrUnknown = Annotated[bool | None, msgspec.Meta(extra_json_schema={"enum": [True, None]})]
"""Whether a token was emitted: true, or null if that is not known; an ``emission`` says of which it
was not."""


class ManyIds(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What stands for token ids that are too many to be listed."""

    count: Count
    sha256: Digest


class _TokenLine(ChainedLine, kw_only=True):
    """A line that gives a position of a sequence a token."""

    sequence: str
    position: Count
    token_id: Count
    emitted: EmittedOrUnknown = True

    def __post_init__(self) -> None:
        """Refuses what no writer can say of a token when it writes the line of it."""
        if self.emitted is False:
            raise ValueError("emitted is true or null; an emission tells of what was dropped")


class StopFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What ends a sequence."""

    token_ids: list[AnyId] | ManyIds
    max_tokens: Count | None
    max_length: Count | None
    min_tokens: Count | None
    stop_strings: bool


class Sequence(ChainedLine, kw_only=True, tag="sequence"):
    """What is constant in a sequence."""

    sequence: str
    request_key: str
    trial: str | None
    condition: str | None
    prompt_tokens: Count | None
    prompt_digest: DigestOrEmpty
    options: dict[str, Any]
    fields: dict[str, Any]
    stop: StopFields
    wall_time_ns: Nanoseconds


class Draw(ChainedLine, kw_only=True, tag="draw"):
    """One request to a source and its answer, which rows of one step share."""

    draw: Count
    source: str
    source_distribution: str | None
    source_version: str | None
    fallback: bool
    fallback_reason: str
    bytes: Count
    requests: Count
    data_sha256: Digest
    device_id: str
    device_timestamp_ns: SignedNanoseconds | None
    commitment: DigestOrEmpty
    echo_verified: bool | None
    signature: str
    signature_verified: bool | None
    t_logits_ns: Nanoseconds | None
    t_request_ns: Nanoseconds
    t_received_ns: Nanoseconds
    wall_time_ns: Nanoseconds
    sequence_id: SignedNanoseconds | None = None
    health: Literal["ok", "suspect", "untested"] = "untested"
    rows: tuple[Digest, ...] = ()


class UsedUniform(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One of several numbers that took part in a token, or all those that drew one draft."""

    role: str
    u: Probability
    bytes: Count
    jit: bool
    source: str
    fallback: bool
    t_request_ns: Nanoseconds | None
    t_received_ns: Nanoseconds | None
    draw: Count | None = None
    offset: Count | None = None
    log_q: float | None = None
    unit_ns: Nanoseconds | None = None


class Token(_TokenLine, kw_only=True, tag="token"):
    """A token that entropy chose."""

    draw: Count | None
    offset: Count | None
    block_bytes: Count
    block_sum: Count
    block_ones: Count
    u: Uniform
    statistic: float
    lattice_step: float | None = None
    baseline: str = ""
    temperature: float
    entropy_nats: float
    varentropy_nats2: float
    running_entropy_nats: float | None = None
    rank: Count
    probability: Probability
    candidates: Count
    row_digest: DigestOrEmpty = ""
    role: str | None = None
    outcome: str | None = None
    jit: bool = True
    uniforms: list[UsedUniform] | None = None
    amplifier: str = ""
    t_logits_ns: Nanoseconds | None = None
    row_draw: Count | None = None


class Discard(ChainedLine, kw_only=True, tag="discard"):
    """Bytes that were drawn and decided no emitted token."""

    sequence: str = ""
    position: Count | None = None
    reason: str
    draw: Count | None = None
    offset: Count | None = None
    source: str
    fallback: bool = False
    block_bytes: Count
    u: Probability | None = None
    row_digest: DigestOrEmpty = ""
    role: str | None = None
    jit: bool = True
    t_logits_ns: Nanoseconds | None = None
    wall_time_ns: Nanoseconds
    log_q: float | None = None
    unit_ns: Nanoseconds | None = None


class Forced(_TokenLine, kw_only=True, tag="forced"):
    """A token that ends a request for which there was no entropy."""

    reason: str
    source: str
    wall_time_ns: Nanoseconds


class Undecided(_TokenLine, kw_only=True, tag="undecided"):
    """A token whose row of logits had no distribution to draw from."""

    reason: str
    wall_time_ns: Nanoseconds


class Emission(ChainedLine, kw_only=True, tag="emission"):
    """What became of a token whose line could not tell."""

    sequence: str
    position: Count
    token_id: Count
    emitted: bool
    reason: str
    wall_time_ns: Nanoseconds


class Bypass(ChainedLine, kw_only=True, tag="bypass"):
    """A sequence whose tokens the host engine chooses."""

    request_key: str | None
    wall_time_ns: Nanoseconds
    trial: str | None = None
    condition: str | None = None


class End(ChainedLine, kw_only=True, tag="end"):
    """A sequence is over."""

    sequence: str
    tokens: Count
    reason: str
    link: DigestOrEmpty
    wall_time_ns: Nanoseconds
