# SPDX-License-Identifier: Apache-2.0
"""What a test of a source is going to spend, and what its quotas do not allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from qr_sampler.entropy import SourceLimits
from qr_sampler_cli.terminal.durations import duration

__all__ = [
    "BURSTS",
    "CONTRACT_BYTES",
    "CONTRACT_REQUESTS",
    "HEALTH_BYTES",
    "LATENCY_SIZES",
    "MINUTE_S",
    "PROBE_BYTES",
    "Plan",
    "Stage",
    "latency_stage",
    "plan_of",
]

PROBE_BYTES: Final = 8
"""Bytes of the first draw, which shows whether there is anything to test."""
CONTRACT_REQUESTS: Final = 160
"""Most requests of the contract where none is split; a test counts them."""
CONTRACT_BYTES: Final = 20_000
"""Most bytes of the contract; a test counts them."""
HEALTH_BYTES: Final = 1_024
"""Samples of a start-up test by SP 800-90B, section 4.3."""
LATENCY_SIZES: Final = (64, 1_024, 10_240)
"""Bytes of the draws that are timed: small, middling and default blocks."""
MANY_DRAWS, FEW_DRAWS = 10, 3
"""Draws of each size that are timed, without quotas and with some."""

BURSTS: Final = {"test_threads_share_no_bytes": 64, "test_nothing_is_delivered_twice": 16}
"""Requests that a clause makes in quick succession."""

MINUTE_S: Final = 62.0
"""Servers that count by the second forget a request up to a second late."""
LONGEST_S: Final = 600.0
"""A stage that would have to wait longer than this for its quota is left out."""
DAILY_SHARE: Final = 0.1
"""Of a daily quota, no more is spent."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the test."""

    name: str
    """``contract``, ``health`` or ``latency`` with the bytes of a draw."""
    requests: int
    """Most requests that it makes."""
    count_bytes: int
    """Most bytes that it draws."""
    wait_s: float = 0.0
    """Seconds that it waits for the quota of requests."""
    left_out: str = ""
    """Why it is not run; empty if it is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All parts of the test, in their order."""

    stages: tuple[Stage, ...]
    skipped_clauses: tuple[str, ...] = ()
    """Clauses of the contract that ask faster than the quota allows."""

    @property
    def running(self) -> tuple[Stage, ...]:
        """Those that are run."""
        return tuple(stage for stage in self.stages if not stage.left_out)

    def has(self, name: str) -> bool:
        """Returns whether the stage *name* is run."""
        return any(stage.name == name for stage in self.running)


def latency_stage(size: int) -> str:
    """Returns the name of the stage that times draws of *size* bytes."""
    return f"latency {size}"


def plan_of(limits: SourceLimits) -> Plan:
    """Returns what a source with these *limits* is tested by."""
    draws = FEW_DRAWS if limits != SourceLimits() else MANY_DRAWS
    wanted = [
        # Each of its draws may leave a request that is not full.
        Stage("contract", CONTRACT_REQUESTS + _split(CONTRACT_BYTES, limits), CONTRACT_BYTES),
        Stage("health", _requests(HEALTH_BYTES, limits), HEALTH_BYTES),
        *(
            Stage(latency_stage(size), draws * _requests(size, limits), draws * size)
            for size in LATENCY_SIZES
        ),
    ]
    left = math.inf if limits.max_bytes_per_day is None else limits.max_bytes_per_day * DAILY_SHARE
    stages = []
    for stage in wanted:
        decided = _decided(stage, limits, left)
        left -= 0 if decided.left_out else decided.count_bytes
        stages.append(decided)
    quota = limits.max_requests_per_minute
    bursts = () if quota is None else tuple(name for name, n in BURSTS.items() if n > quota / 2)
    return Plan(tuple(stages), bursts)


def _split(size: int, limits: SourceLimits) -> int:
    return size // (limits.max_bytes_per_request or size + 1)


def _requests(size: int, limits: SourceLimits) -> int:
    return math.ceil(size / (limits.max_bytes_per_request or size))


def _decided(stage: Stage, limits: SourceLimits, left: float) -> Stage:
    quota = limits.max_requests_per_minute
    # At half the quota, so that a burst and what came before it stay within it.
    wait_s = 0.0 if quota is None else 2.0 * MINUTE_S * stage.requests / quota
    if stage.count_bytes > left:
        daily = f"{limits.max_bytes_per_day:,} bytes a day"
        left_out = f"{stage.count_bytes:,} bytes are too many of {daily}"
    elif wait_s > LONGEST_S:
        left_out = f"{stage.requests} requests would take {duration(wait_s)} at {quota:g} a minute"
    else:
        left_out = ""
    return Stage(stage.name, stage.requests, stage.count_bytes, wait_s, left_out)
