# SPDX-License-Identifier: Apache-2.0
"""Switches the health tests of an engine's sources off and on, which engines cannot do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qr_sampler import EntropyDraw, GuardedSource
from qr_sampler.components import failure_policy
from qr_sampler.entropy.row_context import RowContext

__all__ = ["HealthSwitch"]


class HealthSwitch:
    """A switch for the health tests of all sources that are made from now on in this process.

    While it is off, draws take the way that they take with ``QR_HEALTH=false``: through a second
    guard of the same source, which watches nothing.
    """

    def __init__(self) -> None:
        self.on = True
        switch = self

        class SwitchedGuard(GuardedSource):
            def __init__(
                self,
                source: Any,
                timeout_ms: float,
                on_dropped: Callable[[Any], object] | None = None,
                breaker: Any = None,
                health: Any = None,
            ) -> None:
                super().__init__(source, timeout_ms, on_dropped, breaker, health)
                self.unwatched = GuardedSource(source, timeout_ms, on_dropped, breaker)

            def draw(self, n: int) -> EntropyDraw:
                return super().draw(n) if switch.on else self.unwatched.draw(n)

            def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
                if switch.on:
                    return super().committed_draw(n, commitment)
                return self.unwatched.committed_draw(n, commitment)

            def draw_rows(
                self, contexts: Sequence[RowContext], sizes: Sequence[int]
            ) -> EntropyDraw:
                if switch.on:
                    return super().draw_rows(contexts, sizes)
                return self.unwatched.draw_rows(contexts, sizes)

        if not hasattr(failure_policy, "GuardedSource"):
            raise RuntimeError("the sources of a deployment have no guard: nothing is switched")
        setattr(failure_policy, "GuardedSource", SwitchedGuard)  # noqa: B010 - typed otherwise

    def outside_s(self) -> float:
        """Returns the seconds of processors that other processes have taken: none."""
        return 0.0
