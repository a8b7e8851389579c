# SPDX-License-Identifier: Apache-2.0
"""Whether the latency of a draw tells which source it came from, and so the arm."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from qr_sampler.errors import ConfigError
from qr_sampler.records.reader import read_ledger
from qr_sampler_lab.analysis.latency import classify_latency
from qr_sampler_lab.experiments.protocol import Protocol

__all__ = ["BLIND_BELOW", "latency_figures"]

BLIND_BELOW: Final = 0.55
"""Share of right names up to which two arms count as alike: half of them are right by chance."""


def latency_figures(protocol: Protocol, ledgers: Iterable[Path]) -> dict[str, Any] | None:
    """Returns how well a classifier names the source of a draw by its latency alone.

    Args:
        protocol: Names the sources of the randomised arms.
        ledgers: The ledgers, in order.

    Returns:
        The figures, as JSON-ready values; ``None`` where all arms have one source.
    """
    sources = {arm.source for arm in protocol.arms if arm.per_block}
    if len(sources) < 2:
        return None
    latencies: list[int] = []
    names: list[str] = []
    for path in ledgers:
        for draw in read_ledger(path):
            if draw["kind"] == "draw" and draw.get("source") in sources:
                began, ended = draw.get("t_request_ns"), draw.get("t_received_ns")
                if type(began) is int and type(ended) is int:
                    latencies.append(ended - began)
                    names.append(draw["source"])
    try:
        result = classify_latency(latencies, names)
    except ConfigError as error:
        return {"cannot_be_said": str(error)}
    return {
        "sources": list(result.arms),
        "draws": result.n_draws,
        "balanced_accuracy": result.balanced_accuracy,
        "low": max(0.0, result.interval.low),
        "high": min(1.0, result.interval.high),
        "blind": result.stays_below(BLIND_BELOW),
    }
