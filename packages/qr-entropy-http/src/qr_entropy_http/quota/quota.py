# SPDX-License-Identifier: Apache-2.0
"""What a service allows, kept by refusing a draw before anything of it is asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

from qr_entropy_http.exchange.deadline import Deadline
from qr_entropy_http.quota.store import Counts, QuotaStore
from qr_entropy_http.quota.tally import Tally

__all__ = ["WINDOWS", "Allowance", "Quota", "QuotaError", "Spending"]

WINDOWS: Final = {
    "second": 1.0,
    "minute": 60.0,
    "day": 86_400.0,
    "month": 2_678_400.0,
}
"""Length of each window in seconds; a month is the longest there is."""


class Allowance(NamedTuple):
    """How much of something a service allows in a window of time."""

    unit: Literal["requests", "bytes"]
    window: str
    """A key of :data:`WINDOWS`."""
    limit: int

    @property
    def name(self) -> str:
        """How it is called in a preset and in the file of what was spent."""
        return f"{self.unit}_per_{self.window}"


class QuotaError(Exception):
    """A draw would exceed a quota, so nothing was asked for; names it and states what to do.

    Args:
        reason: The message.
        wait_s: Seconds until the draw fits, ``math.inf`` if it never does.
    """

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(slots=True)
class Spending:
    """What a draw has been granted."""

    requests: int
    payload_bytes: int
    grains: dict[str, int] = field(default_factory=dict)
    """Where each quota has noted it."""

    def amount(self, unit: Literal["requests", "bytes"]) -> int:
        """Returns how much of a unit was granted."""
        return self.requests if unit == "requests" else self.payload_bytes


class Quota:
    """Counts what is asked for, in windows that end now, however a service cuts its own.

    What was asked for counts, whether or not it arrived: the service counts it, too. Threads and
    processes may share the file.

    Args:
        allowances: What the service allows.
        store: Where it is counted.
        clock: Seconds of a clock that outlives the process.
    """

    def __init__(
        self,
        allowances: tuple[Allowance, ...],
        store: QuotaStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._allowances = allowances
        self._store = store
        self._clock = clock

    def spend(self, requests: int, payload_bytes: int, deadline: Deadline) -> Spending:
        """Notes that so many requests for so many bytes are about to be made.

        Raises:
            QuotaError: When they must not be made; nothing is noted then.
            QuotaStoreError: When it cannot be noted.
            DeadlineLapsedError: When the file was in use for too long.
        """
        spending = Spending(requests, payload_bytes)
        if not self._allowances:
            return spending
        with self._store.opened(deadline) as counts:
            now_s = self._clock()
            tallies = [(each, _tally(each, counts)) for each in self._allowances]
            for allowance, tally in tallies:
                amount = spending.amount(allowance.unit)
                _check(allowance, tally, amount, tally.wait_s(amount, now_s), self._store.path)
            for allowance, tally in tallies:
                grain = tally.add(spending.amount(allowance.unit), now_s)
                spending.grains[allowance.name] = grain
                counts[allowance.name] = tally.grains
        return spending

    def take_back(
        self, spending: Spending, requests: int, payload_bytes: int, deadline: Deadline
    ) -> None:
        """Counts requests of *spending* no more that were not made after all.

        Raises:
            QuotaStoreError: When it cannot be noted.
            DeadlineLapsedError: When the file was in use for too long.
        """
        if not self._allowances or not requests:
            return
        unspent = Spending(requests, payload_bytes)
        with self._store.opened(deadline) as counts:
            for allowance in self._allowances:
                tally = _tally(allowance, counts)
                tally.take_back(unspent.amount(allowance.unit), spending.grains[allowance.name])
                counts[allowance.name] = tally.grains


def _tally(allowance: Allowance, counts: Counts) -> Tally:
    return Tally(allowance.limit, WINDOWS[allowance.window], counts.get(allowance.name))


def _check(allowance: Allowance, tally: Tally, amount: int, wait_s: float, path: Path) -> None:
    unit, window, limit = allowance
    setting = f"QR_HTTP_MAX_{allowance.name.upper()}"
    if wait_s == math.inf:
        raise QuotaError(
            f"a draw of {amount} {unit} never fits into {limit} a {window}; draw less with "
            f"QR_SAMPLE_COUNT, or raise {setting} if the service allows it",
            wait_s,
        )
    if wait_s > tally.longest_wait_s:
        raise QuotaError(
            f"{tally.total} of {limit} {unit} a {window} were noted by a clock that has been set "
            f"back since; delete {path} to start counting from zero",
            wait_s,
        )
    if wait_s > 0.0:
        raise QuotaError(
            f"{tally.total} of {limit} {unit} a {window} are spent; {math.ceil(wait_s)} s until "
            f"{amount} more fit, or raise {setting} if the service allows it",
            wait_s,
        )
