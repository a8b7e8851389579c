# SPDX-License-Identifier: Apache-2.0
"""What is kept of every token, of every wasted draw, and of the run they belong to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

__all__ = [
    "SCHEMA_VERSION",
    "BypassRecord",
    "DiscardRecord",
    "EmissionRecord",
    "ForcedRecord",
    "GapRecord",
    "GenesisRecord",
    "Record",
    "TokenSamplingRecord",
    "UnchosenRecord",
    "UndecidedRecord",
]

SCHEMA_VERSION = 2
"""Version of the ledger's layout; raised when a field or a line changes its meaning."""


class Record:
    """A line of the ledger. ``kind`` tells which sort."""

    __slots__ = ()
    kind: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as JSON-ready values, ``kind`` first."""
        return {"kind": self.kind, **{name: getattr(self, name) for name in self.columns()}}

    @classmethod
    @cache
    def columns(cls) -> tuple[str, ...]:
        """Returns the names of the fields in the order in which a line has them."""
        return tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisRecord(Record):
    """The first line of a ledger: what the lines after it were made with."""

    kind: ClassVar[str] = "genesis"

    run_id: str
    """Unique name of the run."""
    engine: str
    """Host engine and its version."""
    model: str
    """Model that the engine serves."""
    versions: dict[str, str]
    """Versions of the distributions that took part."""
    settings: dict[str, Any]
    """The deployment's settings; those of its sources are in :attr:`sources`."""
    pid: int
    """Process that samples."""
    monotonic_ns: int
    """``time.monotonic_ns()`` when the run began, on the clock of the records."""
    wall_time_ns: int
    """``time.time_ns()`` when the run began."""
    schema_version: int = SCHEMA_VERSION
    """Layout of the lines."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    """The sources in use, fallbacks included, each with ``name``, ``kind``, ``distribution``,
    ``version``, ``jit_class``, ``conditioning``, ``tested``, ``limits`` and ``settings``, these
    without secrets. The kind is the name, unless the operator has given the source another one;
    ``tested`` is what health tests look at: ``raw`` bits, ``output`` or ``nothing``."""
    host: dict[str, Any] = field(default_factory=dict)
    """Further facts about the engine."""
    files: dict[str, str] = field(default_factory=dict)
    """Digests of the code that takes part, see :func:`qr_sampler.records.code_digest.code_digest`,
    by distribution."""
    commits: dict[str, str] = field(default_factory=dict)
    """Commits that editable installations are checked out at, by distribution."""
    boot_id: str = ""
    """Names the time since the machine was started, to which the monotonic clock belongs; empty
    where there is no such name."""
    continues: dict[str, Any] | None = None
    """The file that this one continues: its name, its number of lines and its head."""
    seal: str | None = None
    """Digest of the sealed plan that the run belongs to."""
    public_key: str | None = None
    """Key that signatures in this ledger are verified with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRecord(Record):
    """Lines of the run that belong before this one and are not in this file."""

    kind: ClassVar[str] = "gap"

    reason: str
    """What has become of them: ``refused`` by the disk; ``removed`` or ``cut`` with the file that
    they were in; or ``moved``, which they are with that file."""
    missing_lines: int
    """Number of these lines; of a file that was cut short, all that had been written to it."""
    wall_time_ns: int
    """When it was noticed, in nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BypassRecord(Record):
    """A sequence whose tokens the host engine chooses: nothing is drawn, and no token recorded."""

    kind: ClassVar[str] = "bypass"

    request_key: str | None
    """The client's ``qr_request_key``, if it named the request."""
    wall_time_ns: int
    """When the engine took the sequence in, in nanoseconds since the epoch."""
    trial: str | None = None
    """The client's trial label."""
    condition: str | None = None
    """The client's condition label."""


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
    *block_bytes*."""
    emitted: bool | None = True
    """True when the host engine went on from the token, or its sequence ended with it. ``None``
    when that is not known: the request was aborted, or the engine stood still, before it could
    show. An :class:`EmissionRecord` follows if it shows later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnchosenRecord(Record):
    """One emitted token that no entropy decided."""

    request_key: str
    """Names the request, as in :class:`TokenSamplingRecord`."""
    sequence: str
    """Names the sequence, as there."""
    position: int
    """Index of the token in its sequence, from 0."""
    token_id: int
    """The token."""
    reason: str
    """Why no entropy decided it."""
    wall_time_ns: int
    """When it was recorded, in nanoseconds since the epoch."""
    trial: str | None = None
    """The client's trial label."""
    condition: str | None = None
    """The client's condition label."""
    emitted: bool | None = True
    """Whether it was emitted, as in :class:`TokenSamplingRecord`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedRecord(UnchosenRecord):
    """Ends a request for which there was no entropy; *reason* says why there was none."""

    kind: ClassVar[str] = "forced"

    source: str
    """The source that the request had chosen."""

    @classmethod
    @cache
    def columns(cls) -> tuple[str, ...]:
        """Returns the names of its fields, the source behind the reason."""
        names = list(UnchosenRecord.columns())
        names.insert(names.index("reason") + 1, "source")
        return tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class UndecidedRecord(UnchosenRecord):
    """A token whose row of logits had no distribution to draw from.

    It is the one where the logits were largest, in the order in which NaN is above all; or the one
    that ends the request, if the operator ends such requests. The reason is ``masked`` when no
    token was allowed, ``nan`` when a logit was no number, ``infinite`` when one was +inf.
    """

    kind: ClassVar[str] = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmissionRecord(Record):
    """What became of a token whose record, further up, could not tell: its ``emitted`` is null."""

    kind: ClassVar[str] = "emission"

    request_key: str
    """Names the request, as in that record."""
    sequence: str
    """Names the sequence, as there."""
    position: int
    """Index of the token in its sequence, as there."""
    token_id: int
    """The token, as there."""
    emitted: bool
    """Whether it was emitted. If not, another token takes its position, or none does."""
    reason: str
    """Why it was not, or empty."""
    wall_time_ns: int
    """When this showed, in nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardRecord(Record):
    """Bytes that were drawn and decided no emitted token.

    Those that a source delivered too late, or not in full, belong to no token at all: their fields
    that tell of one are empty.
    """

    kind: ClassVar[str] = "discard"

    request_key: str
    """Names the request, as in :class:`TokenSamplingRecord`; empty for bytes of no token."""
    sequence: str
    """Names the sequence, as there; empty for bytes of no token."""
    position: int | None
    """Index that the token would have had."""
    reason: str
    """Why it was not emitted, or why the bytes were dropped."""
    source: str
    """Source that supplied the bytes."""
    fallback: bool
    """Whether they came from the fallback."""
    block_bytes: int
    """Number of bytes that were spent."""
    u: float | None
    """The uniform number that decided nothing."""
    t_logits_ns: int | None
    """When the logits were complete, on the monotonic clock."""
    t_request_ns: int | None
    """When the entropy request left, on the same clock."""
    t_received_ns: int | None
    """When its answer was complete, on the same clock."""
    wall_time_ns: int
    """When its answer was complete or dropped, in nanoseconds since the epoch."""
    commitment: str = ""
    """Digest that the source was told with the request, as in :class:`TokenSamplingRecord`."""
    row_digest: str = ""
    """This row's part of it."""
    role: str | None = None
    """What the bytes were to decide where several numbers take part in a token, as in
    :attr:`TokenSamplingRecord.uniforms`."""
    jit: bool = True
    """Whether they were asked for when the logits were complete."""
