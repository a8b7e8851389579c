# SPDX-License-Identifier: Apache-2.0
"""A stand-in for what is waited for, on a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qr_sampler.entropy import patience as patience_module
from qr_sampler.entropy.patience import AttemptFailure, Patience

if TYPE_CHECKING:
    import pytest

__all__ = ["PacedSource", "wait_s"]


class PacedSource:
    """Takes as long as a test says. The clock of every :class:`Patience` is its own meanwhile.

    Args:
        monkeypatch: Sets the clock, and gives it back after the test.
        size: What every draw asks for, as those who draw take it.
        failure: Makes the failure of a fetch that was too late.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        size: Any,
        failure: Callable[..., AttemptFailure] = AttemptFailure,
    ) -> None:
        self.now_ns = 10**12
        self.latency_ms = 1.0
        self.fetches = 0
        self.allowed_ms: list[float] = []
        """What each fetch was given, in milliseconds."""
        self.failure: AttemptFailure | None = None
        """What every fetch ends with, unless it is ``None``."""
        self._size = size
        self._late = failure
        stand_in = type("time", (), {"monotonic_ns": lambda: self.now_ns})
        monkeypatch.setattr(patience_module, "time", stand_in)

    def fetch(self, until_ns: int) -> str:
        """Returns ``"bytes"``, or raises what the test has set.

        Raises:
            AttemptFailure: When it is to fail, or takes longer than it may.
        """
        self.fetches += 1
        allowed_ns = until_ns - self.now_ns
        self.allowed_ms.append(allowed_ns / 1e6)
        latency_ns = round(self.latency_ms * 1e6)
        self.now_ns += max(min(latency_ns, allowed_ns), 0)
        if self.failure is not None:
            raise self.failure
        if latency_ns > allowed_ns:
            raise self._late("too late", lapsed=True)
        return "bytes"

    def draw(self, asks: Any, timeout_ms: float = 5000.0) -> str:
        """Returns what ``asks.draw`` returns, with :meth:`fetch` at the other end."""
        answer: str = asks.draw(self._size, self.now_ns + round(timeout_ms * 1e6), self.fetch)
        return answer


def wait_s(patience: Patience, seconds: float) -> None:
    """Lets the pause of an open circuit pass."""
    # Only a test turns back the time of a pause.
    patience._breaker._retry_at -= seconds  # noqa: SLF001
