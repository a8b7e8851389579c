# SPDX-License-Identifier: Apache-2.0
"""The server that a source connects to, and how a connection is made."""

from __future__ import annotations

import socket
import time
from typing import Final, NamedTuple

from qr_sampler_grpc.connection.unix_socket import reason_to_distrust
from qr_sampler_grpc.direct.peers import peer_uid
from qr_sampler_grpc.direct.reasons import (
    describe_connect_failure,
    describe_lapse,
    describe_loss,
    describe_refusal,
)
from qr_sampler_grpc.direct.status import Status
from qr_sampler_grpc.link import EXHAUSTED_PAUSE_S, LinkFailure
from qr_sampler_grpc.protocol.attestation import VerificationKey

__all__ = ["Endpoint"]

_RETRY_S: Final = 0.001


class Endpoint(NamedTuple):
    """Where a source connects to, and the failures that name it."""

    path: str
    """Path of the socket."""
    server: str
    """Address of the server, as messages show it."""
    key: VerificationKey | None
    """What answers are verified with."""

    def connect(self, deadline_ns: int) -> socket.socket:
        """Returns a connected socket.

        Args:
            deadline_ns: When the time of the draw is over, in ``time.monotonic_ns()``.

        Raises:
            LinkFailure: When there is none, or the server is not trusted.
        """
        if not hasattr(socket, "AF_UNIX"):
            raise self.lost("this platform has no Unix domain sockets")
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            fresh.setblocking(False)
            self._connect(fresh, deadline_ns)
            reason = reason_to_distrust(self.path, peer_uid(fresh))
            fresh.setblocking(True)
        except OSError as error:
            fresh.close()
            raise LinkFailure(describe_connect_failure(self.server, error)) from error
        except BaseException:
            fresh.close()
            raise
        if reason:
            fresh.close()
            raise LinkFailure(f"{self.server} is not believed: {reason}")
        return fresh

    def lost(self, problem: str, dropped_bytes: int = 0) -> LinkFailure:
        """Returns the failure of a draw that met *problem* instead of an answer."""
        return LinkFailure(describe_loss(self.server, problem), dropped_bytes=dropped_bytes)

    def lapsed(self, dropped_bytes: int = 0) -> LinkFailure:
        """Returns the failure of a draw whose time is over."""
        reason = describe_lapse(self.server)
        return LinkFailure(reason, lapsed=True, dropped_bytes=dropped_bytes)

    def refused(self, status: int, words: str, bytes_needed: int) -> LinkFailure:
        """Returns the failure of a draw that the server refused."""
        reason = describe_refusal(self.server, status, words, bytes_needed)
        return LinkFailure(
            reason,
            lapsed=status == Status.TOO_LATE,
            retry_after_s=EXHAUSTED_PAUSE_S if status == Status.EXHAUSTED else None,
        )

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
