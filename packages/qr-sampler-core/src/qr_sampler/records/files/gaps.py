# SPDX-License-Identifier: Apache-2.0
"""What a ledger says of lines that it lacks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qr_sampler.records.chain import Item

__all__ = ["Gap", "beyond", "state_missing"]


@dataclass(slots=True)
class Gap:
    """Lines of the run that belong before this one and are not in this file."""

    reason: str
    """What has become of them: ``refused`` by the disk; lost when the queue had no room for them
    (``overflow``); ``invalid``, which JSON cannot hold; ``removed``, ``moved`` or ``cut`` with the
    file that they were in; ``torn`` when a process ended while it wrote."""
    missing: Counter[str]
    """Their number by kind; of a file that was cut short, all that had been written to it."""
    since_wall_ns: int
    """When the first of them was missed, in nanoseconds since the epoch."""
    torn_bytes: int = 0
    """Length of the unfinished line before this one, 0 if there is none."""
    wall_time_ns: int = 0
    """When it was written, likewise."""


def state_missing(
    due: list[Item], reason: str, missing: Mapping[str, int], since_wall_ns: int = 0
) -> None:
    """Adds missing lines to the gap of that *reason* in *due*, or to a new one at its end."""
    for _, fields in reversed(due):
        if isinstance(fields, Gap) and fields.reason == reason:
            fields.missing.update(missing)
            return
    gap = Gap(reason, Counter(missing), since_wall_ns or time.time_ns())
    due.append(("gap", gap))


def beyond(held: int, due: Iterable[Item]) -> tuple[list[Item], Counter[str]]:
    """Returns the gaps and the first *held* lines of *due*, and by kind how many others it has."""
    kept: list[Item] = []
    missing: Counter[str] = Counter()
    for item in due:
        if isinstance(item[1], Gap) or len(kept) < held:
            kept.append(item)
        else:
            missing[item[0]] += 1
    return kept, missing
