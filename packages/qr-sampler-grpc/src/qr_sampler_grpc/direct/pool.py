# SPDX-License-Identifier: Apache-2.0
"""The idle connections of one process, and what happens to them in a forked one."""

from __future__ import annotations

from typing import Final

from qr_sampler.per_process import PerProcess
from qr_sampler_grpc.direct.connection import Connection

__all__ = ["Pool", "Pools"]

_MAX_IDLE: Final = 8
"""Connections beyond these are closed after use: so many threads rarely draw at once."""


class Pool:
    """Idle connections, the one used last on top. Takes no lock: a list's methods are atomic."""

    def __init__(self) -> None:
        self._idle: list[Connection] = []
        self._closed = False

    def take(self) -> Connection | None:
        """Returns an idle connection, which belongs to the caller from then on."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def put(self, connection: Connection) -> None:
        """Keeps *connection* for a later draw, or closes it."""
        idle = self._idle
        if len(idle) >= _MAX_IDLE or not connection.is_clean:
            connection.close()
            return
        idle.append(connection)
        # Not asked before: closed between that and now, the pool would keep it forever.
        if self._closed:
            self.empty()

    def empty(self) -> None:
        """Closes what is idle."""
        while (connection := self.take()) is not None:
            connection.close()

    def close(self) -> None:
        """Closes what is idle, and from now on all that is put back."""
        self._closed = True
        self.empty()

    def release(self) -> None:
        """Closes this process's copies of connections that another process keeps using."""
        while (connection := self.take()) is not None:
            connection.release()


class Pools:
    """A pool for each process that uses a source; threads may share an instance."""

    def __init__(self) -> None:
        self._pools = PerProcess(self._fresh)

    def current(self) -> Pool:
        """Returns the pool of this process."""
        return self._pools.get()

    def close(self) -> None:
        """Closes the pool of this process; the next draw has another."""
        pool = self._pools.pop()
        if pool is not None:
            pool.close()

    def _fresh(self) -> Pool:
        for other in self._pools.pop_others():
            other.release()
        return Pool()
