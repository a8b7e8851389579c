# SPDX-License-Identifier: Apache-2.0
"""Describes a failed draw in words that an operator can act on.

The only place that knows what a status means to a client; callers see
:class:`~qr_sampler.errors.EntropyUnavailableError` alone.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from qr_sampler_grpc.direct.status import Status

__all__ = ["describe_connect_failure", "describe_lapse", "describe_loss", "describe_refusal"]

_MAX_WORDS: Final = 200
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

_REFUSALS: Final[dict[int, tuple[str, str]]] = {
    Status.MALFORMED: (
        "{server} refuses a request for {bytes_needed} bytes",
        "lower QR_DIRECT_MAX_BYTES_PER_REQUEST to what it serves",
    ),
    Status.EXHAUSTED: (
        "{server} has reached a limit",
        "wait for its quota to recover, or draw less with QR_SAMPLE_COUNT",
    ),
    Status.UNAVAILABLE: (
        "{server} has no bytes at the moment",
        "repair its device or start the server again",
    ),
    Status.TOO_LATE: (
        "the device of {server} was busy until the time was over",
        "draw from fewer places at once, or raise QR_CB_MIN_TIMEOUT_MS or QR_DIRECT_TIMEOUT_MS",
    ),
    Status.BUSY: (
        "{server} admits no further connection",
        "draw from fewer threads and processes, or let the server admit more",
    ),
    Status.DENIED: (
        "{server} does not serve this user",
        "run as the user of the server, or let its operator allow this one",
    ),
    Status.UNREADABLE: (
        "{server} does not understand the request",
        "bring both sides to the same release",
    ),
    Status.DEFECT: ("{server} failed", "see the log of the server"),
}
_UNKNOWN: Final = ("{server} refused with the status {status}", "see the log of the server")

_CONNECT: Final[dict[int | None, tuple[str, str]]] = {
    errno.ENOENT: (
        "there is no socket at {server}",
        "start the server, or correct QR_DIRECT_SERVER_ADDRESS",
    ),
    errno.ECONNREFUSED: (
        "no server listens at {server}",
        "start the server, or correct QR_DIRECT_SERVER_ADDRESS",
    ),
    errno.EACCES: (
        "this user may not open {server}",
        "run as the user of the server, or let its operator allow this one",
    ),
}


def describe_refusal(server: str, status: int, words: str, bytes_needed: int) -> str:
    """Returns what the status of an answer means, the server's explanation, and what to do."""
    happened, remedy = _REFUSALS.get(status, _UNKNOWN)
    facts = {"server": server, "status": status, "bytes_needed": bytes_needed}
    line = _CONTROL.sub(" ", words).strip()
    if len(line) > _MAX_WORDS:
        line = line[:_MAX_WORDS] + "…"
    quoted = f" ({line})" if line else ""
    return f"{happened.format(**facts)}{quoted}; {remedy}"


def describe_lapse(server: str) -> str:
    """Returns the reason for a draw whose time is over."""
    return (
        f"no answer from {server} in time; find out what holds the server up, or raise "
        "QR_CB_MIN_TIMEOUT_MS or QR_DIRECT_TIMEOUT_MS"
    )


def describe_loss(server: str, problem: str) -> str:
    """Returns the reason for a draw that ended with something other than an answer."""
    return f"{server}: {problem}; the connection was closed, see the log of the server"


def describe_connect_failure(server: str, error: OSError) -> str:
    """Returns why there is no connection."""
    happened, remedy = _CONNECT.get(
        error.errno, ("cannot connect to {server}: " + str(error.strerror), "see to that first")
    )
    return f"{happened.format(server=server)}; {remedy}"
