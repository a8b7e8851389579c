# SPDX-License-Identifier: Apache-2.0
"""What all connections of one source have in common, and how one of them begins."""

from __future__ import annotations

import socket
import time
from typing import Final, NamedTuple

from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_grpc.attestation import VerificationKey
from qr_sampler_grpc.direct.reasons import (
    describe_connect_failure,
    describe_lapse,
    describe_loss,
    describe_refusal,
)

__all__ = ["SOURCE_NAME", "Link"]

SOURCE_NAME: Final = "direct"
_RETRY_S: Final = 0.001


class Link(NamedTuple):
    """Where a source connects to, and the errors that say so."""

    path: str
    """Path of the socket."""
    server: str
    """Address of the server, as messages show it."""
    timeout_ms: float
    """How long a draw may take, as messages show it."""
    key: VerificationKey | None
    """What answers are verified with."""

    def connect(self, deadline_ns: int) -> socket.socket:
        """Returns a connected socket.

        Args:
            deadline_ns: When the time of the draw is over, in ``time.monotonic_ns()``.

        Raises:
            EntropyUnavailableError: When there is no connection to be had.
        """
        if not hasattr(socket, "AF_UNIX"):
            raise self.lost("this platform has no Unix domain sockets")
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            fresh.setblocking(False)
            self._connect(fresh, deadline_ns)
            fresh.setblocking(True)
        except OSError as error:
            fresh.close()
            reason = describe_connect_failure(self.server, error)
            raise EntropyUnavailableError(SOURCE_NAME, reason) from error
        except BaseException:
            fresh.close()
            raise
        return fresh

    def lost(self, problem: str, dropped_bytes: int = 0) -> EntropyUnavailableError:
        """Returns the error of a draw that met *problem* instead of an answer."""
        reason = describe_loss(self.server, problem)
        return EntropyUnavailableError(SOURCE_NAME, reason, dropped_bytes=dropped_bytes)

    def lapsed(self) -> EntropyUnavailableError:
        """Returns the error of a draw whose time is over."""
        return EntropyUnavailableError(SOURCE_NAME, describe_lapse(self.server, self.timeout_ms))

    def refused(self, status: int, words: str, bytes_needed: int) -> EntropyUnavailableError:
        """Returns the error of a draw that the server refused."""
        reason = describe_refusal(self.server, status, words, bytes_needed)
        return EntropyUnavailableError(SOURCE_NAME, reason)

    def _connect(self, fresh: socket.socket, deadline_ns: int) -> None:
        while True:
            try:
                return fresh.connect(self.path)
            except BlockingIOError:
                # The server has not yet accepted as many others as may wait; there is no event
                # that tells when it has.
                if time.monotonic_ns() >= deadline_ns:
                    raise self.lapsed() from None
                time.sleep(_RETRY_S)
