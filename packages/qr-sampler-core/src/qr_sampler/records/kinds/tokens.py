# SPDX-License-Identifier: Apache-2.0
"""What is kept of a token that entropy chose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from qr_sampler.records.kinds.record import Record

__all__ = ["TokenSamplingRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSamplingRecord(Record):
    """One token that entropy chose and that was emitted, as far as is known."""

    kind: ClassVar[str] = "token"

    request_key: str
    """Names the request: the client's ``qr_request_key``, or a unique one made here."""
    sequence: str
    """Names the sequence; unique, also among the n sequences of one request."""
    position: int
    """Index of the token in its sequence, from 0."""
    token_id: int
    """The token."""
    u: float
    """The uniform number that selected it, in (0, 1)."""
    statistic: float
    """The amplifier's statistic behind *u*, for ``zscore_mean`` the z-score."""
    lattice_step: float | None
    """Distance between neighbouring values of *u* near the median; ``None`` if the amplifier does
    not say."""
    temperature: float
    """Temperature used."""
    entropy_nats: float
    """Shannon entropy of the row at temperature 1. Adaptive strategies see it rounded to a multiple
    of 2**-10, and so the varentropy."""
    varentropy_nats2: float
    """Varentropy of the row at temperature 1."""
    running_entropy_nats: float | None
    """Running mean of the entropy of the request's earlier tokens; ``None`` for the first."""
    rank: int
    """Rank of the token, 0 for the most probable."""
    probability: float
    """Probability of the token after temperature and truncation."""
    candidates: int
    """Number of tokens that truncation kept; the vocabulary size where nothing truncates."""
    amplifier: str
    """Amplifier used."""
    baseline: str
    """Digest of the frozen baseline that *u* refers to, or empty for the ideal source."""
    temperature_strategy: str
    """Temperature strategy used."""
    source: str
    """Source that supplied the bytes."""
    source_distribution: str
    """Distribution that the source came from."""
    source_version: str
    """Version of that distribution."""
    fallback: bool
    """Whether the bytes came from the fallback instead of the configured source."""
    fallback_reason: str
    """Why, or empty."""
    device_id: str
    """Identity that the device reported, or empty."""
    device_timestamp_ns: int | None
    """Time of measurement that the device reported, on the device's clock."""
    block_bytes: int
    """Number of bytes that decided the token."""
    block_sum: int
    """Sum of those bytes."""
    block_ones: int
    """Number of one bits among those bytes."""
    draw_bytes: int
    """Number of bytes of the whole draw, which rows of one step share."""
    draw_requests: int
    """Number of requests that the draw was split into."""
    t_logits_ns: int
    """When the logits were complete, on the monotonic clock."""
    t_request_ns: int
    """When the entropy request left, on the same clock."""
    t_received_ns: int
    """When its answer was complete, on the same clock."""
    wall_time_ns: int
    """When its answer was complete, in nanoseconds since the epoch."""
    trial: str | None = None
    """The client's trial label."""
    condition: str | None = None
    """The client's condition label."""
    commitment: str = ""
    """Digest that the source was told with the request, hexadecimal; empty if none. It covers all
    rows of the draw, see :mod:`qr_sampler.sampling.commitment`."""
    row_digest: str = ""
    """This token's part of it."""
    echo_verified: bool | None = None
    """Whether the answer repeated the commitment; ``None`` when none was sent."""
    signature_verified: bool | None = None
    """Whether the answer's signature is that of the configured key; ``None`` without a key."""
    health: str = "untested"
    """What the health tests say of the draw: ``ok``, ``suspect`` or ``untested``."""
    role: str | None = None
    """What *u* was drawn for where several numbers take part: ``proposal``, ``residual`` or
    ``bonus``; ``None`` where one number alone decides."""
    outcome: str | None = None
    """What has become of the draft in the token's place, where drafts are verified: ``accepted``
    when the token is the draft, ``corrected`` when it stands in its place, ``bonus`` when there was
    none; ``None`` where nothing is drafted, or the host engine verifies."""
    jit: bool = True
    """Whether the bytes of *u* were asked for when the logits were complete: not for a draft that
    was drawn from a proposal."""
    uniforms: list[dict[str, Any]] | None = None
    """All numbers that took part where there are several, in the order of their use. Each has
    ``role`` (``proposal``, ``accept``, ``residual`` or ``bonus``), ``u`` in [0, 1), ``bytes``,
    ``jit``, ``source``, ``fallback``, ``t_request_ns`` and ``t_received_ns``. Their bytes add up to
    *block_bytes*. All numbers that drew one draft are one entry, of which ``u`` is the first; it
    has ``log_q``, the natural logarithm of the draft's probability under its proposal, and
    ``unit_ns``, how long its sampling unit took."""
    emitted: bool | None = True
    """True when the host engine went on from the token, or its sequence ended with it. ``None``
    when that is not known: the request was aborted, or the engine stood still, before it could
    show. An :class:`EmissionRecord` follows if it shows later."""
