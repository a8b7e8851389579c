# SPDX-License-Identifier: Apache-2.0
"""Serves a device over a Unix domain socket, as ``PROTOCOL.md`` describes."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.connection.unix_socket import private_files, remove_stale_socket
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.direct.frame import MAX_DEVICE_ID_BYTES
from qr_sampler_grpc.direct.peers import AllowedPeers
from qr_sampler_grpc.direct.session import Session, send_refusal
from qr_sampler_grpc.direct.status import Status

__all__ = ["DirectServer", "DirectServerStartError", "serve_direct"]

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")
_BACKLOG: Final = 128
_MAX_LEAVING: Final = 16
"""How many connections beyond the limit may still be closing."""
_FAREWELL_S: Final = 1.0
"""Longest that a thread takes to notice that its connection is gone, unless it is measuring."""


class DirectServerStartError(QRSamplerError, OSError):
    """A server cannot listen at the socket that it was given."""


def serve_direct(
    device: Device,
    address: str,
    *,
    allowed_uids: Iterable[int] = (),
    allowed_gids: Iterable[int] = (),
    max_connections: int = 128,
) -> DirectServer:
    """Returns a server that answers from *device*, already listening.

    The socket belongs to this user alone, unless others are named. A connection costs a thread,
    which sleeps while there is nothing to answer.

    Args:
        device: What measures; may have other listeners at the same time.
        address: Where to listen: ``unix:///path``.
        allowed_uids: Users that are served besides this one and root.
        allowed_gids: Groups whose members are served, if it is the primary group of their process.
        max_connections: Most connections that may be open at once. A further one takes the place of
            the one that has been silent for longest, and is refused when all have a request.

    Raises:
        ConfigError: When an argument is malformed, or the platform does not tell who connects and
            others are to be served.
        DirectServerStartError: When the socket cannot be listened at.
    """
    place = Address.parse(address)
    if not place.path:
        raise ConfigError(f"address {address!r} is not a Unix domain socket; use unix:///path")
    if max_connections < 1:
        raise ConfigError(f"max_connections={max_connections} must be at least 1")
    if len(device.device_id.encode()) > MAX_DEVICE_ID_BYTES:
        raise ConfigError(
            f"the device id {device.device_id!r} is longer than {MAX_DEVICE_ID_BYTES} bytes"
        )
    peers = AllowedPeers(frozenset(allowed_uids), frozenset(allowed_gids))
    try:
        listener = _listen(Path(place.path), peers)
    except OSError as error:
        raise DirectServerStartError(
            f"cannot listen at {place}: {error}; choose another address or stop what is there"
        ) from error
    server = DirectServer(device, place, listener, peers, max_connections)
    _LOGGER.info("serving %s at %s", device.name, server.address)
    return server


def _listen(path: Path, peers: AllowedPeers) -> socket.socket:
    remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with private_files():
            listener.bind(str(path))
        if peers.are_others:
            # The kernel is asked who connects.
            path.chmod(0o666)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class DirectServer:
    """A running server; :func:`serve_direct` starts one. Leaving its ``with`` block stops it."""

    def __init__(
        self,
        device: Device,
        place: Address,
        listener: socket.socket,
        peers: AllowedPeers,
        max_connections: int,
    ) -> None:
        self._device = device
        self._place = place
        self._file = _identity(place.path)
        self._listener = listener
        self._peers = peers
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._sessions: dict[Session, threading.Thread] = {}
        # Asked to end, and gone soon.
        self._leaving: set[Session] = set()
        self._stopping = threading.Event()
        self._wake_up, self._woken = socket.socketpair()
        self._thread = threading.Thread(
            target=self._accept_all, name="qr-direct-accept", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """The address that clients use."""
        return str(self._place)

    @property
    def connections(self) -> int:
        """How many connections are open, not counting those that had to make way."""
        return len(self._sessions) - len(self._leaving)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for the server to stop, and returns whether *timeout_s* seconds passed first."""
        return not self._stopping.wait(timeout_s)

    def stop(self, grace_s: float = 1.0) -> None:
        """Refuses new requests, lets running ones finish for *grace_s* seconds, then drops them.

        May be called more than once. The device is left open; a measurement that does not end is
        left to its thread.
        """
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake_up.send(b"x")
        self._thread.join()
        for end in (self._wake_up, self._woken):
            end.close()
        deadline_s = time.monotonic() + grace_s
        self._hang_up(socket.SHUT_RD)
        self._join(deadline_s)
        self._hang_up(socket.SHUT_RDWR)
        self._join(time.monotonic() + _FAREWELL_S)
        self._remove_file()

    def __enter__(self) -> DirectServer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _accept_all(self) -> None:
        with self._listener:
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            poll.register(self._woken, select.POLLIN)
            while not self._stopping.is_set():
                poll.poll()
                if not self._stopping.is_set():
                    self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            # The process may be out of descriptors; then it must not try as fast as it can.
            _LOGGER.warning("a connection could not be accepted: %s", error)
            self._stopping.wait(0.05)
            return
        if not self._admit(connection):
            connection.close()

    def _admit(self, connection: socket.socket) -> bool:
        uid, allowed = self._peers.check(connection)
        if not allowed:
            _LOGGER.warning("refused a connection of uid %s", uid)
            send_refusal(connection, Status.DENIED, f"uid {uid} is not allowed")
            return False
        if not self._has_place():
            send_refusal(connection, Status.BUSY, f"{self._max_connections} are open")
            return False
        account = "" if uid is None else f"uid {uid}"
        session = Session(connection, self._device, account, self._stopping.is_set)
        thread = threading.Thread(target=self._run, args=(session,), name="qr-direct", daemon=True)
        with self._lock:
            self._sessions[session] = thread
        try:
            thread.start()
        except RuntimeError as error:
            _LOGGER.warning("no thread for a connection: %s", error)
            with self._lock:
                del self._sessions[session]
            send_refusal(connection, Status.BUSY, "the server has no thread to spare")
            return False
        return True

    def _has_place(self) -> bool:
        """Returns whether one more connection is admitted.

        Where there are as many as may be, the one that has been idle for longest is ended: its
        client finds it closed before the next request leaves, and connects again.
        """
        with self._lock:
            if self.connections < self._max_connections:
                return True
            idle = [
                session
                for session in self._sessions.keys() - self._leaving
                if session.idle_since_ns
            ]
            if not idle or len(self._leaving) >= self._max_connections + _MAX_LEAVING:
                return False
            oldest = min(idle, key=lambda session: session.idle_since_ns)
            self._leaving.add(oldest)
            # What has arrived before this is still read and answered.
            with suppress(OSError):
                oldest.connection.shutdown(socket.SHUT_RD)
            return True

    def _run(self, session: Session) -> None:
        try:
            session.run()
        finally:
            # Under the lock, so that a descriptor that has been reused is never shut down.
            with self._lock:
                del self._sessions[session]
                self._leaving.discard(session)
                session.connection.close()

    def _hang_up(self, how: int) -> None:
        with self._lock:
            for session in self._sessions:
                with suppress(OSError):
                    session.connection.shutdown(how)

    def _join(self, deadline_s: float) -> None:
        with self._lock:
            threads = list(self._sessions.values())
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _remove_file(self) -> None:
        # A successor may already listen at the same path.
        if self._file == _identity(self._place.path):
            with suppress(FileNotFoundError):
                Path(self._place.path).unlink()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
