# SPDX-License-Identifier: Apache-2.0
"""The events that a server reports to its monitoring."""

from __future__ import annotations

__all__ = ["Telemetry"]


class Telemetry:
    """Receives the events of a device and its listeners; override what you need.

    Every method is called from the thread in which it happens, some while the device is held: they
    return at once and raise nothing.
    """

    def answered(self, method: str, code: str) -> None:
        """One request of *method* ended with the status *code*, ``"OK"`` for bytes."""

    def measured(self, n: int, seconds: float) -> None:
        """The device generated *n* bytes in *seconds*."""

    def streams(self, change: int) -> None:
        """The number of open streams changed by *change*."""

    def health(self, *, serving: bool) -> None:
        """The device has begun or ceased to serve."""
