# SPDX-License-Identifier: Apache-2.0
"""The fields of the ledger's lines, without those that every line has.

What is constant for a draw or a sequence stands in a line of its own, and a field that has its
default is left out. :class:`~qr_sampler.TokenSamplingRecord` and its siblings, which are flat,
explain the fields that have the same names there.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

__all__ = [
    "ClockLine",
    "DiscardLine",
    "DrawLine",
    "EmissionLine",
    "EndLine",
    "FiniteTokenLine",
    "ForcedLine",
    "SequenceLine",
    "TokenLine",
    "UndecidedLine",
]


class SequenceLine(msgspec.Struct, gc=False):
    """A sequence, before the first line that names it."""

    kind: ClassVar[str] = "sequence"

    sequence: str
    request_key: str
    trial: str | None
    condition: str | None
    prompt_tokens: int | None
    """Number of tokens of the prompt; ``None`` where the host does not say."""
    prompt_digest: str
    """Keyed SHA-256 of their ids; empty if there is none."""
    options: dict[str, Any]
    """The source, and every parameter that its tokens are sampled with."""
    fields: dict[str, Any]
    """The ordinary fields of the request that change its logits."""
    stop: dict[str, Any]
    """What ends it: ``token_ids`` (of many only their number and digest), ``max_tokens``,
    ``max_length``, ``min_tokens``, and whether there are ``stop_strings``."""
    wall_time_ns: int
    """When the engine took it in."""


class DrawLine(msgspec.Struct, omit_defaults=True, gc=False):
    """A draw, before the first line that names it."""

    kind: ClassVar[str] = "draw"

    draw: int
    """Its number in the run, from 0."""
    source: str
    source_distribution: str
    source_version: str
    fallback: bool
    fallback_reason: str
    bytes: int
    """Number of bytes that it brought."""
    requests: int
    """Number of requests that it was split into."""
    data_sha256: str
    """SHA-256 of its bytes in the order in which rows got them."""
    device_id: str
    device_timestamp_ns: int | None
    commitment: str
    echo_verified: bool | None
    signature: str
    """The signature of the answer, base64; empty if it had none or there were several answers."""
    signature_verified: bool | None
    t_logits_ns: int | None
    """When the logits were complete; ``None`` for a draw that preceded them."""
    t_request_ns: int
    t_received_ns: int
    wall_time_ns: int
    sequence_id: int | None = None
    """The number of the request that the signature covers."""
    health: str = "untested"
    """What the health tests say of the bytes: ``ok``, ``suspect`` or ``untested``."""
    rows: tuple[str, ...] = ()
    """The digests of all rows that the commitment covers, where some of them decide no token and
    waste no bytes of their own: those behind a rejected draft."""


class TokenLine(msgspec.Struct, omit_defaults=True, gc=False):
    """A token that entropy chose."""

    kind: ClassVar[str] = "token"

    sequence: str
    position: int
    token_id: int
    draw: int | None
    """Number of the draw that decided it."""
    offset: int | None
    """Index of the first of its bytes in that draw."""
    block_bytes: int
    block_sum: int
    block_ones: int
    u: float
    statistic: float
    temperature: float
    entropy_nats: float
    varentropy_nats2: float
    rank: int
    probability: float
    candidates: int
    running_entropy_nats: float | None = None
    lattice_step: float | None = None
    baseline: str = ""
    row_digest: str = ""
    emitted: bool | None = True
    outcome: str | None = None
    role: str | None = None
    jit: bool = True
    uniforms: list[dict[str, Any]] | None = None
    """As in the record, and for each number ``draw`` and ``offset``."""
    amplifier: str = ""
    """The map from bytes to u where it is not the one that the options of the sequence name."""
    t_logits_ns: int | None = None
    """When the logits were complete where the draw does not say so."""
    row_draw: int | None = None
    """Number of the draw whose request told of the row, where another one decided the token."""


class FiniteTokenLine(TokenLine, omit_defaults=True, gc=False):
    """The same, by someone who knows already that every number in it is finite."""


class DiscardLine(msgspec.Struct, omit_defaults=True, gc=False):
    """Bytes that decided no emitted token."""

    kind: ClassVar[str] = "discard"

    sequence: str
    position: int | None
    reason: str
    draw: int | None
    """Number of their draw; ``None`` for bytes that came late or not in full."""
    offset: int | None
    """Index of the first of them in it."""
    source: str
    fallback: bool
    block_bytes: int
    u: float | None
    wall_time_ns: int
    row_digest: str = ""
    role: str | None = None
    jit: bool = True
    t_logits_ns: int | None = None
    """When the logits were complete where the draw does not say so."""
    log_q: float | None = None
    unit_ns: int | None = None


class ForcedLine(msgspec.Struct, omit_defaults=True, gc=False):
    """A token that ends a sequence for which there was no entropy."""

    kind: ClassVar[str] = "forced"

    sequence: str
    position: int
    token_id: int
    reason: str
    source: str
    wall_time_ns: int
    emitted: bool | None = True


class UndecidedLine(msgspec.Struct, omit_defaults=True, gc=False):
    """A token whose row of logits had no distribution to draw from."""

    kind: ClassVar[str] = "undecided"

    sequence: str
    position: int
    token_id: int
    reason: str
    wall_time_ns: int
    emitted: bool | None = True


class EmissionLine(msgspec.Struct, gc=False):
    """What became of a token whose line, further up, could not tell."""

    kind: ClassVar[str] = "emission"

    sequence: str
    position: int
    token_id: int
    emitted: bool
    reason: str
    wall_time_ns: int


class EndLine(msgspec.Struct, gc=False):
    """The end of a sequence, after its last token."""

    kind: ClassVar[str] = "end"

    sequence: str
    tokens: int
    """How many of its tokens are known to have been emitted."""
    reason: str
    """``stop`` when a stop condition was met; ``forced`` when it was ended without entropy;
    ``departed`` when the engine has dropped it; ``closed`` when the engine has ended."""
    link: str
    """What would tie a further token to it, hexadecimal; empty without commitments."""
    wall_time_ns: int


class ClockLine(msgspec.Struct, gc=False):
    """The clocks of the machine at one moment."""

    kind: ClassVar[str] = "clock"

    monotonic_ns: int
    """The clock of the records."""
    boottime_ns: int | None
    """The same, with the time that the machine was suspended; ``None`` where there is none."""
    wall_time_ns: int
    """Nanoseconds since the epoch."""
    synchronized: bool | None
    """Whether the kernel takes its clock for synchronized; ``None`` where it does not say."""
