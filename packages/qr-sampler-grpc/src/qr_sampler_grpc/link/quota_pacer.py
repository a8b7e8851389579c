# SPDX-License-Identifier: Apache-2.0
"""Keeps the examination of a server within its quotas."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from qr_sampler.entropy import SourceLimits
from qr_sampler_grpc.link.quota import Quota, QuotaExceededError

__all__ = ["QUIET_S", "QuotaPacer", "QuotaUsedUpError"]

QUIET_S: Final = 62.0
"""After so many seconds without a request every quota by the minute has recovered, even where the
server counts by the second."""


class QuotaUsedUpError(Exception):
    """Something cannot be asked for within the quotas, at least not soon; states why."""


def _silent(_words: str) -> None:
    return


class QuotaPacer:
    """Waits until a request is allowed; shared by everything that asks one server.

    The quotas of the settings are kept beforehand. Those that only the server knows show in its
    refusals: after one of them a quiet minute tells a quota by the minute from a longer one.

    Args:
        limits: The quotas of the settings.
        tell: Called with the reason for each wait.
        clock: Monotonic seconds.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        limits: SourceLimits | None = None,
        *,
        tell: Callable[[str], None] = _silent,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._quota = Quota(limits or SourceLimits(), clock)
        self._tell = tell
        self._sleep = sleep
        self._without_success = False
        self._used_up = ""

    @property
    def waited_without_success(self) -> bool:
        """Whether the server has not answered since the last quiet minute."""
        return self._without_success

    def admit(self, requests: int, payload_bytes: int) -> None:
        """Counts requests, after waiting until they fit into the quotas of the settings.

        Raises:
            QuotaUsedUpError: When that would take longer than a minute, or waiting has not helped
                before.
        """
        if self._used_up:
            raise QuotaUsedUpError(self._used_up)
        while True:
            try:
                return self._quota.spend(requests, payload_bytes)
            except QuotaExceededError as error:
                if error.wait_s > QUIET_S:
                    raise QuotaUsedUpError(str(error)) from None
                self._pause(str(error), error.wait_s)

    def sit_out(self, reason: str) -> bool:
        """Waits for a quiet minute, and returns whether asking again is worthwhile.

        It is not if the last quiet minute did not help; from then on nothing is waited for.

        Args:
            reason: The words of the server's refusal.
        """
        if self._without_success or self._used_up:
            self._used_up = self._used_up or reason
            return False
        self._without_success = True
        self._pause(reason, QUIET_S)
        return True

    def note_answer(self) -> None:
        """Notes that the server answers, so that its next refusal is waited for again."""
        self._without_success = False

    def _pause(self, reason: str, seconds: float) -> None:
        self._tell(f"waiting {math.ceil(seconds)} s: {reason}")
        self._sleep(seconds)
