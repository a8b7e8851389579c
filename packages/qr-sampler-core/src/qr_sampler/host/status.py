# SPDX-License-Identifier: Apache-2.0
"""The status of one engine, for monitoring. Nothing here draws or touches a device.

Anybody may read it: it contains no paths, addresses, settings of sources or keys of requests.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from itertools import groupby, repeat
from typing import Any, Final, NamedTuple

from qr_sampler.entropy.draw import EntropyDraw, SourceStatus
from qr_sampler.entropy.fallback import FallbackEntropySource, primary_guard
from qr_sampler.entropy.guard import GuardedSource
from qr_sampler.entropy.source import EntropySource
from qr_sampler.foreign import is_ours
from qr_sampler.host.outcomes import NO_LEDGER
from qr_sampler.host.public_text import public_text
from qr_sampler.host.status_report import (
    LastDraw,
    LastFailure,
    SourceHealthReport,
    StatusReport,
)
from qr_sampler.records import (
    BypassRecord,
    DiscardRecord,
    ForcedRecord,
    TokenSamplingRecord,
    UndecidedRecord,
)
from qr_sampler.records.entries import (
    DiscardEntry,
    Entry,
    RecordedDiscard,
    RecordedToken,
    SequenceRecord,
    TokenEntry,
)
from qr_sampler.sampling.columns import StepColumns

__all__ = ["DRAW_SECONDS", "RECENT_TOKENS", "EngineStatus"]

DRAW_SECONDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Upper bounds of the histogram buckets for durations of draws, in seconds."""

RECENT_TOKENS: Final = 100
"""Number of tokens over which the share of the fallback is taken."""

WITHHELD: Final = "the reason is in the records"
"""Replaces the words of a source of another project."""

REMEMBERED_DRAWS: Final = 1024
"""Number of latest draws that are remembered as counted."""


class EngineStatus:
    """Counts what an engine has recorded. May be used from several threads.

    Args:
        facts: The constant part of the status, as JSON-ready values.
        sources: The sources by name; what they fall back to is reported behind them.
    """

    def __init__(self, facts: Mapping[str, Any], sources: Mapping[str, EntropySource]) -> None:
        self._facts = dict(facts)
        self._sources = _with_fallbacks(sources)
        self._lock = threading.Lock()
        self._left_to_engine = 0
        self._tokens: Counter[tuple[str, bool]] = Counter()
        self._forced = 0
        self._undecided: Counter[str] = Counter()
        self._discards: Counter[str] = Counter()
        self._discarded_bytes: Counter[str] = Counter()
        self._token_bytes = 0
        self._draws = [0] * (len(DRAW_SECONDS) + 1)
        self._draw_seconds = 0.0
        self._counted: dict[int, None] = {}
        """When the latest draws were requested; several records may refer to one of them."""
        self._forgotten_ns = 0
        self._latest_request_ns = 0
        self._failed: dict[str, bool] = {}
        """By source, whether its last draw has failed."""
        self._last_draw: LastDraw | None = None
        self._last_failure: LastFailure | None = None
        self._recent: deque[bool] = deque(maxlen=RECENT_TOKENS)

    def forget(self) -> None:
        """Renews the lock in a forked process, in which nobody could release it."""
        self._lock = threading.Lock()

    def observe(self, entries: Iterable[Entry]) -> None:
        """Counts *entries*; consecutive tokens of one step are counted together."""
        with self._lock:
            for step, run in groupby(entries, _step_of):
                if step is not None:
                    self._observe_step(step, [entry.row for entry in run])  # type: ignore[union-attr]
                else:
                    for entry in run:
                        self._observe_one(entry)

    def _observe_step(self, step: StepColumns, indices: list[int]) -> None:
        draw, sizes = step.draw, step.block_bytes
        self._observe_tokens(_DrawFacts.of_draw(draw), len(indices), sum(sizes[i] for i in indices))

    def _observe_one(self, entry: Entry) -> None:
        if isinstance(entry, (SequenceRecord, RecordedDiscard)):
            self._observe_one(entry.record())
        elif isinstance(entry, DiscardEntry):
            size = entry.step.block_bytes[entry.row]
            self._observe_discard(entry.reason, size, _DrawFacts.of_draw(entry.step.draw))
        elif isinstance(entry, DiscardRecord):
            self._observe_discard(entry.reason, entry.block_bytes, _DrawFacts.of_discard(entry))
        elif isinstance(entry, RecordedToken):
            facts = _DrawFacts.of_token(entry.token, entry.fallback_from)
            self._observe_tokens(facts, 1, entry.token.block_bytes)
        elif isinstance(entry, TokenSamplingRecord):
            self._observe_tokens(_DrawFacts.of_token(entry, ""), 1, entry.block_bytes)
        elif isinstance(entry, ForcedRecord):
            self._forced += 1
            self._recent.append(True)
            if entry.reason != NO_LEDGER:
                self._note_failure(entry.source, entry.reason, entry.wall_time_ns)
        elif isinstance(entry, BypassRecord):
            self._left_to_engine += 1
        elif isinstance(entry, UndecidedRecord):
            self._undecided[entry.reason] += 1

    def as_dict(self, *, records_lost: int) -> dict[str, Any]:
        """Returns the status as JSON-ready values: the facts, then a :class:`StatusReport`.

        Args:
            records_lost: Number of records that are no longer in the ledger, or never were.
        """
        statuses = {name: _status_of(source) for name, source in self._sources.items()}
        with self._lock:
            report: StatusReport = {
                "sources": [
                    {
                        "name": name,
                        "available": status.available,
                        "reason": status.reason,
                        "last_draw_failed": self._failed.get(name, False),
                        "health": _health_of(self._sources[name]),
                    }
                    for name, status in statuses.items()
                ],
                "requests_left_to_engine": self._left_to_engine,
                "tokens": [
                    {"source": name, "fallback": fallback, "count": count}
                    for (name, fallback), count in sorted(self._tokens.items())
                ],
                "forced_tokens": self._forced,
                "undecided_tokens": [
                    {"reason": reason, "count": count}
                    for reason, count in sorted(self._undecided.items())
                ],
                "token_bytes": self._token_bytes,
                "discards": [
                    {"reason": reason, "count": count, "bytes": self._discarded_bytes[reason]}
                    for reason, count in sorted(self._discards.items())
                ],
                "draws": {"buckets": list(self._draws), "seconds": self._draw_seconds},
                "last_draw": self._last_draw,
                "last_failure": self._last_failure,
                "recent_tokens": len(self._recent),
                "recent_without_source": sum(self._recent),
                "records_lost": records_lost,
            }
        return {**self._facts, **report}

    def _observe_tokens(self, draw: _DrawFacts, count: int, size: int) -> None:
        """Counts *count* tokens that one draw has decided, with *size* bytes in all."""
        self._tokens[draw.source, draw.fallback] += count
        self._token_bytes += size
        self._recent.extend(repeat(draw.fallback, min(count, RECENT_TOKENS)))
        if not draw.fallback:
            self._failed[draw.source] = False
        elif draw.fallback_from:
            self._note_failure(draw.fallback_from, draw.failure, draw.wall_time_ns)
        self._observe_draw(draw)

    def _observe_discard(self, reason: str, size: int, draw: _DrawFacts) -> None:
        # What the tests have measured would make each alarm a reason of its own.
        reason = "health" if reason.startswith("health: ") else reason
        self._discards[reason] += 1
        self._discarded_bytes[reason] += size
        self._observe_draw(draw)

    def _observe_draw(self, draw: _DrawFacts) -> None:
        """Counts *draw* unless another row of its step has counted it."""
        requested_ns, received_ns = draw.requested_ns, draw.received_ns
        if requested_ns is None or received_ns is None or not self._is_new(requested_ns):
            return
        seconds = (received_ns - requested_ns) / 1e9
        self._draws[bisect_left(DRAW_SECONDS, seconds)] += 1
        self._draw_seconds += seconds
        if requested_ns > self._latest_request_ns:
            self._latest_request_ns = requested_ns
            self._last_draw = {
                "source": draw.source,
                "fallback": draw.fallback,
                "seconds": seconds,
                "wall_time_ns": draw.wall_time_ns,
                "monotonic_ns": received_ns,
            }

    def _is_new(self, requested_ns: int) -> bool:
        if requested_ns in self._counted or requested_ns <= self._forgotten_ns:
            return False
        self._counted[requested_ns] = None
        if len(self._counted) > REMEMBERED_DRAWS:
            oldest = next(iter(self._counted))
            del self._counted[oldest]
            self._forgotten_ns = max(self._forgotten_ns, oldest)
        return True

    def _note_failure(self, source: str, reason: str, wall_time_ns: int) -> None:
        self._failed[source] = True
        self._last_failure = {
            "source": source,
            "reason": _public_reason(reason, self._sources.get(source)),
            "wall_time_ns": wall_time_ns,
        }


class _DrawFacts(NamedTuple):
    """What the status counts of a draw."""

    source: str
    fallback: bool
    fallback_from: str
    fallback_reason: str
    requested_ns: int | None
    received_ns: int | None
    wall_time_ns: int

    @classmethod
    def of_draw(cls, draw: EntropyDraw) -> _DrawFacts:
        """Returns those of a draw."""
        return cls(
            draw.source,
            draw.fallback,
            draw.fallback_from,
            draw.fallback_reason,
            draw.requested_ns,
            draw.received_ns,
            draw.wall_time_ns,
        )

    @classmethod
    def of_token(cls, record: TokenSamplingRecord, fallback_from: str) -> _DrawFacts:
        """Returns those of the draw that decided a token."""
        return cls(
            record.source,
            record.fallback,
            fallback_from,
            record.fallback_reason,
            record.t_request_ns,
            record.t_received_ns,
            record.wall_time_ns,
        )

    @classmethod
    def of_discard(cls, record: DiscardRecord) -> _DrawFacts:
        """Returns those of a draw that decided nothing; why it was a fallback's is not known."""
        return cls(
            record.source,
            record.fallback,
            "",
            "",
            record.t_request_ns,
            record.t_received_ns,
            record.wall_time_ns,
        )

    @property
    def failure(self) -> str:
        """Why the fallback took over, without the name of the source, which comes before it."""
        return self.fallback_reason.removeprefix(f"{self.fallback_from}: ")


def _with_fallbacks(sources: Mapping[str, EntropySource]) -> dict[str, EntropySource]:
    """Returns *sources* and, behind them, those that take over but cannot be chosen."""
    every = dict(sources)
    for source in sources.values():
        if isinstance(source, FallbackEntropySource):
            every.setdefault(source.fallback.name, source.fallback)
    return every


def _step_of(entry: Entry) -> StepColumns | None:
    """Returns the step that has chosen a token, ``None`` for every other entry."""
    return entry.step if isinstance(entry, TokenEntry) else None


def _status_of(source: EntropySource) -> SourceStatus:
    """Returns the status of a source itself, not of its fallback."""
    primary = source.primary if isinstance(source, FallbackEntropySource) else source
    try:
        status = primary.status()
    # A defective source must not keep the engine from starting, nor end the thread that writes
    # its records.
    except Exception as error:
        reason = f"its status is not available ({type(error).__name__})"
        return SourceStatus(available=False, reason=reason)
    reason = _public_reason(str(status.reason), primary)
    return SourceStatus(available=bool(status.available), reason=reason)


def _health_of(source: EntropySource) -> SourceHealthReport:
    """Returns the health of a source itself, not of its fallback. All words are ours."""
    guard = primary_guard(source)
    if guard is None:
        return {"state": "untested", "tested": "nothing", "reason": "not guarded", "alarms": {}}
    health = guard.health
    return {
        "state": health.state.value,
        "tested": health.tested,
        "reason": health.reason,
        "alarms": dict(health.alarms),
    }


def _public_reason(reason: str, source: EntropySource | None) -> str:
    """Returns *reason* as it may be shown in public.

    Even ordinary words may reveal something, so only those written by this project are repeated.
    """
    return public_text(reason) if not reason or _reasons_are_ours(source) else WITHHELD


def _reasons_are_ours(source: EntropySource | None) -> bool:
    if isinstance(source, FallbackEntropySource):
        return _reasons_are_ours(source.primary) and _reasons_are_ours(source.fallback)
    return is_ours(source.source if isinstance(source, GuardedSource) else source)
