# SPDX-License-Identifier: Apache-2.0
"""The latencies of a source, from the draws that ledgers hold: what its sham needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from qr_entropy_sources.latency_profile import (
    LONGEST_NS,
    MOST_LATENCIES,
    MOST_SIZES,
    LatencyProfile,
    LatencySeries,
)
from qr_sampler.errors import ConfigError, shown
from qr_sampler.records.chain import head_of
from qr_sampler.records.reader import lines_in

__all__ = ["FEWEST_DRAWS", "latency_profile"]

FEWEST_DRAWS: Final = 100
"""Draws of a size that a profile needs: of fewer, every single latency would be known by heart."""

_OF_DRAW: Final = ("bytes", "t_request_ns", "t_received_ns")


def latency_profile(ledgers: Iterable[Path], source: str) -> LatencyProfile:
    """Returns the latencies of *source*, in the order of the ledgers, by size of the draw.

    A draw that another source served, or that took several requests, does not count. Of many sizes
    the most frequent 64 are kept, and of each the first 100,000 draws.

    Args:
        ledgers: Ledger files.
        source: Name of the source.

    Raises:
        ConfigError: When there are too few draws, or a file cannot be read.
    """
    latencies: dict[int, list[int]] = defaultdict(list)
    heads = [_read(path, source, latencies) for path in ledgers]
    enough = [size for size, found in latencies.items() if len(found) >= FEWEST_DRAWS]
    if not enough:
        most = max(map(len, latencies.values()), default=0)
        raise ConfigError(
            f"{shown(source)} has at most {most} draws of one size in these ledgers; a profile "
            f"needs {FEWEST_DRAWS}: record more, with the block length and the batch of the study"
        )
    kept = sorted(enough, key=lambda size: -len(latencies[size]))[:MOST_SIZES]
    return LatencyProfile(
        source=source,
        heads=tuple(heads),
        sizes=tuple(LatencySeries.of(size, latencies[size]) for size in sorted(kept)),
    )


def _read(path: Path, source: str, latencies: dict[int, list[int]]) -> str:
    """Adds the latencies in a file; returns the head of the file."""
    last = b""
    try:
        with path.open("rb") as file:
            for line in lines_in(file):
                last = line.data
                if line.values is not None and line.values["kind"] == "draw":
                    _take(line.values, source, latencies)
    except OSError as error:
        raise ConfigError(f"cannot read the ledger {path}: {error}") from error
    return head_of(last)


def _take(draw: dict[str, Any], source: str, latencies: dict[int, list[int]]) -> None:
    size, began, ended = (_number(draw, name) for name in _OF_DRAW)
    if draw.get("source") != source or draw.get("fallback") or draw.get("requests") != 1:
        return
    if size > 0 and 0 <= ended - began <= LONGEST_NS and len(latencies[size]) < MOST_LATENCIES:
        latencies[size].append(ended - began)


def _number(draw: dict[str, Any], name: str) -> int:
    """Returns a whole number in a line; -1 if it is none."""
    value = draw.get(name)
    return value if type(value) is int else -1
