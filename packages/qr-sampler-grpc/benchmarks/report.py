# SPDX-License-Identifier: Apache-2.0
"""The tables of all figures, and which targets they meet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.matrix import BLOCKS, PAUSES_MS, Measured

__all__ = ["Outcome", "gates", "tables"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for one target."""

    what: str
    ratio: float
    bound: float = math.inf
    """The target; infinite for a ratio that is told and not judged."""

    @property
    def met(self) -> bool:
        """Whether the ratio is small enough."""
        return self.ratio <= self.bound

    def __str__(self) -> str:
        if math.isinf(self.bound):
            return f"told   {self.ratio:7.2f}           {self.what}"
        verdict = "met   " if self.met else "MISSED"
        return f"{verdict} {self.ratio:7.2f} <= {self.bound:5.2f}  {self.what}"

    def as_dict(self) -> dict[str, Any]:
        """Returns what a report needs."""
        return {
            "what": self.what,
            "ratio": round(self.ratio, 3),
            "bound": None if math.isinf(self.bound) else self.bound,
            "met": self.met,
        }


def gates(measured: Sequence[Measured], concurrent: Mapping[int, float]) -> list[Outcome]:
    """Returns how the default fast mode and ``direct`` do against their targets."""
    p50 = {(one.mode, one.address, one.blocks): one.p50_us for one in _at(measured, 0.0)}

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
    ]
    for pause_ms in PAUSES_MS:
        outcomes += _direct_outcomes(_at(measured, pause_ms), pause_ms)
    for blocks, bound in ((16, 0.30), (64, 0.25)):
        batched = p50["bidi_streaming", "UDS", blocks]
        what = f"one request of {blocks} blocks / {blocks} unary calls at once"
        outcomes.append(Outcome(what, batched / concurrent[blocks], bound))
    return outcomes


def _direct_outcomes(measured: Sequence[Measured], pause_ms: float) -> list[Outcome]:
    """Returns ``direct`` beside the bare socket and the fastest gRPC mode.

    What a step waits is judged against the socket with pauses, since an engine makes them; what a
    draw takes is judged against gRPC without, since waking a core up costs both the same.
    """
    p50 = {one.mode: one.p50_us for one in measured if (one.address, one.blocks) == ("UDS", 1)}
    raw_bound, grpc_bound = (1.5, math.inf) if pause_ms else (math.inf, 0.1)
    bounds = {
        "raw socket": raw_bound,
        "raw, settimeout": raw_bound,
        "bidi_streaming": grpc_bound,
    }
    return [
        Outcome(f"direct / {other}, 1 block, {_pace(pause_ms)}", p50["direct"] / p50[other], bound)
        for other, bound in bounds.items()
    ]


def tables(measured: Sequence[Measured], concurrent: Mapping[int, float]) -> str:
    """Returns a Markdown table for each pace: p50, p99 and the ratio to the bare socket."""
    back_to_back, *paced = [(_pace(one), _table(_at(measured, one))) for one in PAUSES_MS]
    at_once = [f"{concurrent[blocks]:,.0f}" for blocks in BLOCKS[1:]]
    last = " | ".join(["| unary, one call per block at once", "UDS", "", *at_once]) + " |"
    first = (back_to_back[0], f"{back_to_back[1]}\n{last}")
    return "\n\n".join(f"{pace}:\n\n{table}" for pace, table in (first, *paced))


def _table(measured: Sequence[Measured]) -> str:
    raw = {(one.address, one.blocks): one.p50_us for one in measured if one.mode == "raw socket"}
    heads = [f"{blocks} block{'s' * (blocks > 1)}: p50 / p99 us (x raw)" for blocks in BLOCKS]
    lines = [" | ".join(["| mode", "address", *heads]) + " |", "| --- " * 5 + "|"]
    for mode, address in dict.fromkeys((one.mode, one.address) for one in measured):
        cells = [
            _cell(one, raw["UDS" if address == "UDS" else "TCP", one.blocks])
            for one in measured
            if (one.mode, one.address) == (mode, address)
        ]
        lines.append(" | ".join([f"| {mode}", address, *cells]) + " |")
    return "\n".join(lines)


def _at(measured: Sequence[Measured], pause_ms: float) -> list[Measured]:
    return [one for one in measured if one.pause_ms == pause_ms]


def _pace(pause_ms: float) -> str:
    return f"with {pause_ms:g} ms between" if pause_ms else "back to back"


def _cell(one: Measured, raw_us: float) -> str:
    return f"{one.p50_us:,.0f} / {one.p99_us:,.0f} ({one.p50_us / raw_us:.1f})"
