# SPDX-License-Identifier: Apache-2.0
"""What the status of an answer says, as ``PROTOCOL.md`` defines it."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Status"]


class Status(IntEnum):
    """How a request was answered."""

    OK = 0
    """The data holds the bytes."""
    MALFORMED = 1
    """This request is never served."""
    EXHAUSTED = 2
    """A quota is used up."""
    UNAVAILABLE = 3
    """The device cannot deliver at the moment, or the server is stopping."""
    TOO_LATE = 4
    """The device was busy until the client's time was over."""
    BUSY = 5
    """The server has as many connections as it admits."""
    DENIED = 6
    """The server does not serve this user."""
    UNREADABLE = 7
    """The bytes are not a request of this version."""
    DEFECT = 8
    """The server or the code of the device failed."""
