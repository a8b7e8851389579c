# SPDX-License-Identifier: Apache-2.0
"""What the entropy sources that ask a server have in common, whatever the protocol."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from typing import Final

from qr_sampler.entropy import EntropyDraw, EntropySource, JitClass, SourceStatus
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.per_process import PerProcess
from qr_sampler_grpc.link.link import Link

__all__ = ["LinkedSource", "unguessable"]

_NUMBER_BITS: Final = 63


class LinkedSource(EntropySource):
    """Draws through a :class:`Link`, of which each process has its own.

    Subclasses implement :meth:`committed_draw`, and set *commits* where commitments are passed on.

    Args:
        timeout_ms: Longest that one draw may take, in milliseconds.
        breaker: When a draw is given up and when the server is left alone.
    """

    jit_class = JitClass.REMOTE
    is_client = True
    """A server that draws from here is a proxy: it knows only what the answers say."""
    # Every draw has a deadline, and nothing waits past it.
    blocks = False

    def __init__(self, timeout_ms: float, breaker: BreakerOptions | None) -> None:
        self._link_timeout_ms = timeout_ms
        self._breaker_options = breaker or BreakerOptions.checked()
        self._links = PerProcess(self._new_link)

    def get_random_bytes(self, n: int) -> bytes:
        """Returns exactly *n* bytes that the server generated on this request.

        Raises:
            EntropyUnavailableError: When the server does not deliver exactly that.
            ValueError: When *n* is negative.
        """
        return self.draw(n).data

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes with what the server reported about them.

        A draw of several requests carries the earliest of the reported times and every distinct
        device.

        Raises:
            EntropyUnavailableError: When the server does not deliver exactly that in time. Bytes
                that it did deliver are dropped.
            ValueError: When *n* is negative.
        """
        return self.committed_draw(n, b"")

    @abstractmethod
    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        """Returns what :meth:`draw` returns; the server learns *commitment* with the request."""

    def status(self) -> SourceStatus:
        """Returns how the latest draw ended, without contacting the server."""
        return self._links.get().status()

    def _new_link(self) -> Link:
        return Link(
            self.limits,
            self._breaker_options,
            self._link_timeout_ms,
            has_fallback=self.has_fallback,
        )


def unguessable() -> int:
    """Returns the number of a request, 1 to 2**63 - 1: an answer with it was made afterwards.

    Consecutive numbers could be predicted, and an answer sent before its request.
    """
    return secrets.randbits(_NUMBER_BITS) or 1
