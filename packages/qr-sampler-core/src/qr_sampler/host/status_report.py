# SPDX-License-Identifier: Apache-2.0
"""What the status of an engine consists of, as JSON-ready values."""

from __future__ import annotations

from typing import TypedDict

__all__ = [
    "DiscardCount",
    "DrawDurations",
    "LastDraw",
    "LastFailure",
    "SourceCondition",
    "SourceHealthReport",
    "StatusReport",
    "TokenCount",
    "UndecidedCount",
]


class SourceHealthReport(TypedDict):
    """What the health tests say of one source."""

    state: str
    """``ok``, ``suspect``, ``failed`` or ``untested``."""
    tested: str
    """What they look at: ``raw`` bits, ``output`` of a conditioner, or ``nothing``."""
    reason: str
    """Why it is not ok; empty if it is."""
    alarms: dict[str, int]
    """How many draws each test has objected to."""


class SourceCondition(TypedDict):
    """One source, without what takes over from it."""

    name: str
    available: bool
    reason: str
    """Why not, or a remark; withheld for sources of other projects."""
    last_draw_failed: bool
    """As far as records tell: never of one that only takes over, see *available* there."""
    health: SourceHealthReport


class TokenCount(TypedDict):
    """Emitted tokens whose bytes came from one source."""

    source: str
    fallback: bool
    """Whether it stood in for another source."""
    count: int


class UndecidedCount(TypedDict):
    """Tokens whose logits had no distribution, by one reason."""

    reason: str
    count: int


class DiscardCount(TypedDict):
    """Blocks that were drawn but not used, by one reason."""

    reason: str
    count: int
    bytes: int


class DrawDurations(TypedDict):
    """How long the draws took."""

    buckets: list[int]
    """Number of draws up to each of :data:`~qr_sampler.host.status.DRAW_SECONDS`, then longer."""
    seconds: float
    """All of them together."""


class LastDraw(TypedDict):
    """The draw that was requested last."""

    source: str
    fallback: bool
    seconds: float
    wall_time_ns: int
    monotonic_ns: int


class LastFailure(TypedDict):
    """The draw that failed last."""

    source: str
    reason: str
    wall_time_ns: int


class StatusReport(TypedDict):
    """The status of one engine; what a host adds to it comes before these."""

    sources: list[SourceCondition]
    requests_left_to_engine: int
    tokens: list[TokenCount]
    forced_tokens: int
    undecided_tokens: list[UndecidedCount]
    token_bytes: int
    discards: list[DiscardCount]
    draws: DrawDurations
    last_draw: LastDraw | None
    last_failure: LastFailure | None
    recent_tokens: int
    """Number of tokens that the next count refers to."""
    recent_without_source: int
    """Those among them that a fallback or no source at all decided."""
    records_lost: int
