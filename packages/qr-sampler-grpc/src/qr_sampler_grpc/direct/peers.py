# SPDX-License-Identifier: Apache-2.0
"""Which user is at the other end of a Unix domain socket, and whether it is served."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from qr_sampler.errors import ConfigError

__all__ = ["AllowedPeers", "peer_uid"]

_CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred`` of Linux: process, user, group."""
_ROOT: Final = 0
_PEER_CREDENTIALS: Final[int | None] = getattr(socket, "SO_PEERCRED", None)


@dataclass(frozen=True, slots=True)
class AllowedPeers:
    """The users that are served besides this one and root.

    Raises:
        ConfigError: When there are any, and the platform does not tell who connects.
    """

    uids: frozenset[int] = frozenset()
    """Numbers of users."""
    gids: frozenset[int] = frozenset()
    """Numbers of groups; the primary group of the process that connects counts."""

    def __post_init__(self) -> None:
        if self.are_others and _PEER_CREDENTIALS is None:
            raise ConfigError(
                "this platform does not tell who connects; leave allowed_uids and allowed_gids out"
            )

    @property
    def are_others(self) -> bool:
        """Whether anyone but this user and root is served."""
        return bool(self.uids or self.gids)

    def check(self, connection: socket.socket) -> tuple[int | None, bool]:
        """Returns the user that connected, ``None`` if unknown, and whether to serve them."""
        credentials = _peer(connection)
        if credentials is None:
            # The socket's file lets no other user in.
            return None, True
        uid, gid = credentials
        return uid, uid in (_ROOT, os.geteuid()) or uid in self.uids or gid in self.gids


def peer_uid(connection: socket.socket) -> int | None:
    """Returns the user at the other end: of a server, the one that it began to listen as.

    ``None`` where the platform does not tell.
    """
    credentials = _peer(connection)
    return None if credentials is None else credentials[0]


def _peer(connection: socket.socket) -> tuple[int, int] | None:
    if _PEER_CREDENTIALS is None:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, _PEER_CREDENTIALS, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(raw)
    return uid, gid
