# SPDX-License-Identifier: Apache-2.0
"""How long a failed source is left alone before it may show that it works again."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["FIRST_PAUSE_S", "LONGEST_PAUSE_S", "RecoveryPause"]

FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0


class RecoveryPause:
    """Pauses of one minute, then two, then four, up to an hour.

    A source that fails again within its last pause after it has recovered waits for twice as long;
    one that has worked for longer than that begins with a minute.

    Examples:
        >>> pause = RecoveryPause()
        >>> pause.begin(now_s=0.0)
        >>> pause.left_s(now_s=45.0)
        15.0
        >>> pause.begin(now_s=60.0)
        >>> pause.left_s(now_s=60.0)
        120.0
    """

    def __init__(self) -> None:
        self._length_s = 0.0
        self._ends_s = -math.inf

    def begin(self, now_s: float) -> None:
        """Begins a pause: the source has failed."""
        again = now_s <= self._ends_s + self._length_s
        self._length_s = min(2.0 * self._length_s, LONGEST_PAUSE_S) if again else FIRST_PAUSE_S
        self._ends_s = now_s + self._length_s

    def left_s(self, now_s: float) -> float:
        """Returns for how many seconds the source is still to be left alone."""
        return max(self._ends_s - now_s, 0.0)
