# SPDX-License-Identifier: Apache-2.0
"""Draws from a server in one mode, and how long they took."""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from qr_sampler.entropy import EntropyDraw, EntropySource
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_grpc.link.quota_pacer import QuotaPacer, QuotaUsedUpError
from qr_sampler_grpc.probe.target import ProbeTarget

__all__ = [
    "COMMITMENT_BYTES",
    "ModeReport",
    "fastest_mode",
    "measure_mode",
    "paced_draw",
    "quantile",
]

COMMITMENT_BYTES: Final = 32
"""Length of the commitments that are sent along, the same as in use."""
_NS_PER_MS: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeReport:
    """How draws in one mode went."""

    mode: str
    """Name of the mode."""
    works: bool
    """Whether every draw succeeded, or several before a quota was used up."""
    reason: str = ""
    """Why one did not."""
    exhausted: bool = False
    """Whether a quota was the reason, so that nothing is wrong with the server."""
    offered: bool = True
    """Whether the contract has the mode at all."""
    draws: int = 0
    """Number of draws that succeeded."""
    draw_bytes: int = 0
    """Bytes of each."""
    p50_ms: float | None = None
    """Median time of a draw in milliseconds; the first one, which connects, is left out."""
    p99_ms: float | None = None
    """Its 99th percentile."""


def measure_mode(
    target: ProbeTarget,
    mode: str,
    *,
    draws: int,
    draw_bytes: int,
    pacer: QuotaPacer,
    progress: Callable[[int, int], None],
) -> tuple[ModeReport, list[EntropyDraw]]:
    """Makes *draws* draws in *mode*; returns how they went, and the draws.

    Stops at the first failure, unless that is a quota which recovers. One draw more is made at the
    beginning, and not timed.

    Args:
        target: The server.
        mode: The mode.
        draws: Number of timed draws, at least 1.
        draw_bytes: Bytes of each.
        pacer: Keeps the quotas and waits for them.
        progress: Called with the number of draws made and to be made.
    """
    done: list[EntropyDraw] = []
    reason, exhausted = "", False
    with contextlib.closing(target.source(mode, draw_bytes)) as source:
        try:
            for _ in range(draws + 1):
                commitment = secrets.token_bytes(COMMITMENT_BYTES)
                done.append(paced_draw(source, draw_bytes, commitment, pacer))
                progress(len(done), draws + 1)
        except QuotaUsedUpError as error:
            reason, exhausted = str(error), True
        except EntropyUnavailableError as error:
            reason = error.reason
    times = sorted((draw.received_ns - draw.requested_ns) / _NS_PER_MS for draw in done[1:])
    report = ModeReport(
        mode=mode,
        works=not reason or (exhausted and len(done) > 1),
        reason=reason,
        exhausted=exhausted,
        draws=len(done),
        draw_bytes=draw_bytes,
        p50_ms=quantile(times, 0.5) if times else None,
        p99_ms=quantile(times, 0.99) if times else None,
    )
    return report, done


def paced_draw(source: EntropySource, n: int, commitment: bytes, pacer: QuotaPacer) -> EntropyDraw:
    """Returns a draw of *n* bytes, after waiting for the quotas where they are used up.

    Raises:
        QuotaUsedUpError: When a quota does not recover soon.
        EntropyUnavailableError: When the draw fails for any other reason.
    """
    requests = math.ceil(n / (source.limits.max_bytes_per_request or n))
    while True:
        pacer.admit(requests, n)
        try:
            draw = source.committed_draw(n, commitment)
        except EntropyUnavailableError as error:
            if error.retry_after_s is None:
                raise
            if not pacer.sit_out(error.reason):
                raise QuotaUsedUpError(error.reason) from None
        else:
            pacer.note_answer()
            return draw


def fastest_mode(modes: Iterable[ModeReport]) -> str:
    """Returns the working mode with the shortest median, or nothing when none works."""
    working = [(mode.p50_ms, mode.mode) for mode in modes if mode.works and mode.p50_ms is not None]
    return min(working)[1] if working else ""


def quantile(ordered: list[float], fraction: float) -> float:
    """Returns the smallest of the *ordered* values that *fraction* of them do not exceed.

    Examples:
        >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0], 0.99)
        (2.0, 2.0)
    """
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]
