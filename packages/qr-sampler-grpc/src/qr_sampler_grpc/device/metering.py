# SPDX-License-Identifier: Apache-2.0
"""How much an account of a server may draw over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.rolling_sum import DAY_S, MINUTE_S, RollingSum

__all__ = ["Meters"]

_REQUESTS: Final = "requests a minute"
_BYTES: Final = "bytes a day"
_WINDOWS: Final = {_REQUESTS: (MINUTE_S, MINUTE_S / 60), _BYTES: (DAY_S, MINUTE_S)}
"""Length and grain of each window, in seconds."""


class Meters:
    """Counts the requests and the bytes of each account; threads may share an instance.

    A request is counted when it is admitted, before anything is measured, and stays counted when
    the measurement fails. A refused request is not counted.

    Args:
        requests_per_minute: Most requests of one account in any minute; ``None`` means unlimited.
        bytes_per_day: Most bytes of one account in any 24 hours; ``None`` means unlimited.
        clock: Returns seconds that never run backwards.

    Raises:
        ConfigError: When a limit is less than 1.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        bytes_per_day: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = {"requests_per_minute": requests_per_minute, "bytes_per_day": bytes_per_day}
        for name, value in limits.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} admits nothing; use 1 or more, or leave it out")
        self._limits = {
            unit: limit
            for unit, limit in zip(_WINDOWS, limits.values(), strict=True)
            if limit is not None
        }
        self._clock = clock
        self._accounts: dict[str, dict[str, RollingSum]] = {}
        self._lock = threading.Lock()

    def admit(self, account: str, n: int) -> tuple[float, str]:
        """Counts one request for *n* bytes, or returns why it is refused.

        Returns:
            The seconds after which the request would be admitted and the limit that it meets:
            ``(0.0, "")`` for a request that is admitted and counted.
        """
        if not self._limits:
            return 0.0, ""
        amounts = {_REQUESTS: 1, _BYTES: n}
        with self._lock:
            meters = self._of(account)
            now_s = self._clock()
            wait_s, unit = max(
                (meter.wait_s(amounts[unit], now_s), unit) for unit, meter in meters.items()
            )
            if wait_s > 0.0:
                return wait_s, f"{self._limits[unit]} {unit}"
            for unit, meter in meters.items():
                meter.add(amounts[unit], now_s)
            return 0.0, ""

    def _of(self, account: str) -> dict[str, RollingSum]:
        if account not in self._accounts:
            self._accounts[account] = {
                unit: RollingSum(limit, *_WINDOWS[unit]) for unit, limit in self._limits.items()
            }
        return self._accounts[account]
