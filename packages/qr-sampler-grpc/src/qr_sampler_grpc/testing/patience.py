# SPDX-License-Identifier: Apache-2.0
"""How long tests wait, on a machine that may be busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from qr_sampler.entropy.breaker_settings import BreakerOptions

__all__ = ["NO_BREAKER", "PATIENCE_S", "PATIENT_MS", "eventually"]

PATIENCE_S: Final = 60.0
"""The longest wait for something that has to happen."""
PATIENT_MS: Final = 1000 * PATIENCE_S
"""The time limit of a draw that has to be answered; no test waits that long."""
NO_BREAKER: Final = BreakerOptions.checked(enabled=False)
"""Every draw asks the server and may take the whole timeout."""


def eventually(condition: Callable[[], bool]) -> bool:
    """Waits until *condition* holds and returns whether it does."""
    deadline_s = time.monotonic() + PATIENCE_S
    # What held once is not asked again: it may be over by then.
    while not (holds := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return holds
