# SPDX-License-Identifier: Apache-2.0
"""Compares records and emitted tokens one to one, and summarizes a run."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qr_sampler_cli.generation.ledger_reader import EmittedLine, Ledger

__all__ = ["Emission", "RunSummary", "find_discrepancies", "summarize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """What the engine emitted for one request."""

    request_key: str
    """Names the request."""
    token_ids: tuple[int, ...]
    """The emitted tokens, in order."""
    interrupted: bool = False
    """Whether the user has ended it, perhaps before its first token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run in numbers."""

    tokens: int
    """Emitted tokens."""
    primary_source: str
    """Name of the configured source."""
    primary_tokens: int
    """Token records whose bytes came from the configured source."""
    fallback_tokens: int
    """Token records whose bytes came from the fallback."""
    mean_u: float | None
    """Mean of u over the token records; 0.5 is expected, with standard deviation
    1/sqrt(12 * records). ``None`` without records."""
    median_draw_ms: float | None
    """Median time from entropy request to answer over the token records. ``None`` without
    records."""

    @property
    def all_primary(self) -> bool:
        """Whether every emitted token came from the configured source; False without tokens."""
        return 0 < self.tokens == self.primary_tokens

    def line(self) -> str:
        """Returns the summary as one line."""
        mean_u = "n/a" if self.mean_u is None else f"{self.mean_u:.4f}"
        median = "n/a" if self.median_draw_ms is None else f"{self.median_draw_ms:.3f} ms"
        return (
            f"{self.tokens} tokens | {self._share(self.primary_tokens)} from {self.primary_source}"
            f" | {self._share(self.fallback_tokens)} fallback | mean u {mean_u}"
            f" | median draw {median}"
        )

    def _share(self, part: int) -> str:
        if not self.tokens:
            return "n/a"
        # Rounding must not turn "almost all" into "all", nor "hardly any" into "none".
        percent = 100 * part / self.tokens
        if 0 < part < self.tokens:
            percent = min(max(percent, 0.1), 99.9)
        return f"{percent:.1f} %"


def find_discrepancies(emissions: Sequence[Emission], ledger: Ledger) -> tuple[str, ...]:
    """Returns a description of every discrepancy between records and emitted tokens; empty if none.

    Each emitted token must have exactly one record, whatever decided it, with its request, position
    and id, and there must be no other such record but of tokens that may not have been emitted.
    """
    records = ledger.emitted()
    findings: list[str] = []
    for emission in emissions:
        findings.extend(_of_request(emission, records.get(emission.request_key, ())))
    findings.extend(_of_strangers(emissions, records))
    return tuple(findings)


def _of_request(emission: Emission, records: Collection[EmittedLine]) -> Iterator[str]:
    key = emission.request_key
    if not emission.token_ids and not emission.interrupted:
        yield f"request {key}: the engine emitted no token"
    by_position = {record.position: record for record in records}
    certain = {record.position for record in records if record.certain}
    copies = Counter(record.position for record in records)
    for position, token_id in enumerate(emission.token_ids):
        if copies[position] != 1:
            yield f"request {key}, token {position}: {copies[position]} records instead of 1"
        elif by_position[position].token_id != token_id:
            yield (
                f"request {key}, token {position}: the engine emitted token id {token_id}, its "
                f"record says {by_position[position].token_id}"
            )
    for position in sorted(certain):
        if not 0 <= position < len(emission.token_ids):
            yield f"request {key}: a record of token {position}, which was not emitted"


def _of_strangers(
    emissions: Iterable[Emission], records: Mapping[str, Sequence[EmittedLine]]
) -> Iterator[str]:
    known = {emission.request_key for emission in emissions}
    for key in sorted(records.keys() - known):
        yield f"{len(records[key])} token records of request {key}, which was not part of this run"


def summarize(emissions: Sequence[Emission], ledger: Ledger, *, primary_source: str) -> RunSummary:
    """Returns a run in numbers.

    Args:
        emissions: What the engine emitted.
        ledger: What was recorded.
        primary_source: Name of the configured source.
    """
    records = ledger.tokens
    own = [record for record in records if record.is_of(primary_source)]
    times = [record.draw_ms for record in records if record.draw_ms is not None]
    return RunSummary(
        tokens=sum(len(emission.token_ids) for emission in emissions),
        primary_source=primary_source,
        primary_tokens=len(own),
        fallback_tokens=sum(record.fallback is True for record in records),
        mean_u=statistics.fmean(record.u for record in records) if records else None,
        median_draw_ms=statistics.median(times) if times else None,
    )
