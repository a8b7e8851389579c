# SPDX-License-Identifier: Apache-2.0
"""The table of all figures, and which targets they meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.matrix import BLOCKS, Measured

__all__ = ["Outcome", "gates", "table"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for one target."""

    what: str
    ratio: float
    bound: float

    @property
    def met(self) -> bool:
        """Whether the ratio is small enough."""
        return self.ratio <= self.bound

    def __str__(self) -> str:
        verdict = "met   " if self.met else "MISSED"
        return f"{verdict} {self.ratio:7.2f} <= {self.bound:5.2f}  {self.what}"

    def as_dict(self) -> dict[str, Any]:
        """Returns what a report needs."""
        return {
            "what": self.what,
            "ratio": round(self.ratio, 3),
            "bound": self.bound,
            "met": self.met,
        }


def gates(measured: Sequence[Measured], concurrent: Mapping[int, float]) -> list[Outcome]:
    """Returns how the default fast mode and ``direct`` do against their targets."""
    p50 = {(one.mode, one.address, one.blocks): one.p50_us for one in measured}

    def ratio(above: tuple[str, str, int], below: tuple[str, str, int]) -> float:
        return p50[above] / p50[below]

    fast, raw = ("bidi_streaming", "UDS", 1), ("raw socket", "UDS", 1)
    large, large_raw = ("bidi_streaming", "UDS", 64), ("raw socket", "UDS", 64)
    outcomes = [
        Outcome("bidi_streaming / raw socket, 1 block", ratio(fast, raw), 45.0),
        Outcome("bidi_streaming / unary, 1 block", ratio(fast, ("unary", "UDS", 1)), 0.75),
        Outcome(
            "bidi_streaming / bidi_streaming (aio), 1 block",
            ratio(fast, ("bidi_streaming (aio)", "UDS", 1)),
            0.95,
        ),
        Outcome("bidi_streaming / raw socket, 64 blocks", ratio(large, large_raw), 8.0),
        Outcome("direct / raw socket, 1 block", ratio(("direct", "UDS", 1), raw), 1.5),
        Outcome("direct / bidi_streaming, 1 block", ratio(("direct", "UDS", 1), fast), 0.1),
    ]
    for blocks, bound in ((16, 0.30), (64, 0.25)):
        batched = p50["bidi_streaming", "UDS", blocks]
        what = f"one request of {blocks} blocks / {blocks} unary calls at once"
        outcomes.append(Outcome(what, batched / concurrent[blocks], bound))
    return outcomes


def table(measured: Sequence[Measured], concurrent: Mapping[int, float]) -> str:
    """Returns p50, p99 and the ratio to the bare socket as a Markdown table."""
    raw = {(one.address, one.blocks): one.p50_us for one in measured if one.mode == "raw socket"}
    heads = [f"{blocks} block{'s' * (blocks > 1)}: p50 / p99 us (x raw)" for blocks in BLOCKS]
    lines = [" | ".join(["| mode", "address", *heads]) + " |", "| --- " * 5 + "|"]
    ways = dict.fromkeys((one.mode, one.address) for one in measured)
    for mode, address in ways:
        cells = [
            _cell(one, raw["UDS" if address == "UDS" else "TCP", one.blocks])
            for one in measured
            if (one.mode, one.address) == (mode, address)
        ]
        lines.append(" | ".join([f"| {mode}", address, *cells]) + " |")
    at_once = [f"{concurrent[blocks]:,.0f}" for blocks in BLOCKS[1:]]
    lines.append(" | ".join(["| unary, one call per block at once", "UDS", "", *at_once]) + " |")
    return "\n".join(lines)


def _cell(one: Measured, raw_us: float) -> str:
    return f"{one.p50_us:,.0f} / {one.p99_us:,.0f} ({one.p50_us / raw_us:.1f})"
