# SPDX-License-Identifier: Apache-2.0
"""Translates the end of a call into a reason that an operator can act on.

The only place that knows gRPC's status codes; callers see
:class:`~qr_sampler.errors.EntropyUnavailableError` alone.
"""

from __future__ import annotations

import re
from typing import Final

import grpc

from qr_sampler_grpc.link import EXHAUSTED_PAUSE_S
from qr_sampler_grpc.settings import GrpcOptions

__all__ = ["describe_failure", "describe_lapse", "retry_after_s"]

_MAX_DETAILS: Final = 200
_TOO_LARGE: Final = re.compile("larger than max", re.IGNORECASE)
"""gRPC's own words for a message over its limit, sent with the status of a quota."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")

_REASONS: Final = {
    grpc.StatusCode.UNAVAILABLE: (
        "no answer from {server}",
        "start the server or repair its device, or correct QR_GRPC_SERVER_ADDRESS",
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        "no answer from {server} in time",
        "find out what holds the server up, or raise QR_CB_MIN_TIMEOUT_MS or QR_GRPC_TIMEOUT_MS",
    ),
    grpc.StatusCode.UNAUTHENTICATED: (
        "{server} does not accept the API key sent as {header!r}",
        "correct QR_GRPC_API_KEY and QR_GRPC_API_KEY_HEADER",
    ),
    grpc.StatusCode.PERMISSION_DENIED: (
        "{server} does not allow this API key to draw",
        "ask its operator for the permission, or change QR_GRPC_API_KEY",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        "{server} has reached a limit",
        "wait for its quota to recover, or draw less with QR_SAMPLE_COUNT",
    ),
    grpc.StatusCode.INVALID_ARGUMENT: (
        "{server} refuses a request for {bytes_needed} bytes",
        "lower QR_GRPC_MAX_BYTES_PER_REQUEST to what it serves",
    ),
    grpc.StatusCode.UNIMPLEMENTED: (
        "{server} has no method {method_path}",
        "set QR_GRPC_PROFILE to what it speaks, or QR_GRPC_METHOD_PATH to the method that it has",
    ),
    grpc.StatusCode.CANCELLED: (
        "the call to {server} was cancelled",
        "if the source was closed meanwhile, nothing needs doing",
    ),
}
_OVERSIZED: Final = (
    "{server} answered with more than the {bytes_needed} bytes that were asked for",
    "see what it sends; the answer was refused unread",
)
_TLS_TROUBLE: Final = (
    "no encrypted connection to {server}",
    "check the names and the dates of the certificates, and the files of QR_GRPC_TLS_*",
)
_HANDSHAKE: Final = re.compile("handshake|certificate|hostname verif", re.IGNORECASE)
_OTHER: Final = ("{server} ended the call with {code}", "see the log of the server")
_NO_KEY: Final = (
    "{server} asks for an API key and none is set",
    "set QR_GRPC_API_KEY, and QR_GRPC_API_KEY_HEADER if it is not {header!r}",
)


def describe_failure(error: grpc.RpcError, options: GrpcOptions, bytes_needed: int) -> str:
    """Returns what happened, the server's explanation, and what to do.

    Args:
        error: How the call ended.
        options: How the server was called.
        bytes_needed: How many bytes were asked for.
    """
    code = error.code()
    happened, remedy = _REASONS.get(code, _OTHER)
    if code is grpc.StatusCode.UNAUTHENTICATED and options.credentials is None:
        happened, remedy = _NO_KEY
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(error.details() or ""):
        happened, remedy = _OVERSIZED
    if code is grpc.StatusCode.UNAVAILABLE and _HANDSHAKE.search(error.details() or ""):
        happened, remedy = _TLS_TROUBLE
    facts = {
        "server": options.server_address,
        "header": options.api_key_header,
        "method_path": options.contract.method_path,
        "bytes_needed": bytes_needed,
        "code": code.name,
    }
    details = _presentable(error, options)
    quoted = f" ({details})" if details else ""
    return f"{happened.format(**facts)}{quoted}; {remedy.format(**facts)}"


def retry_after_s(error: grpc.RpcError) -> float | None:
    """Returns after how many seconds the call is worth repeating, ``None`` if waiting is no help.

    Args:
        error: How it ended.
    """
    exhausted = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return EXHAUSTED_PAUSE_S if exhausted and not _TOO_LARGE.search(error.details() or "") else None


def describe_lapse(options: GrpcOptions) -> str:
    """Returns the reason for a draw whose time was used up."""
    happened, remedy = _REASONS[grpc.StatusCode.DEADLINE_EXCEEDED]
    return f"{happened.format(server=options.server_address)}; {remedy}"


def _presentable(error: grpc.RpcError, options: GrpcOptions) -> str:
    """Returns the server's words on one line, shortened, and without the key it may have quoted."""
    details = error.details() or ""
    if options.credentials is not None:
        details = options.credentials.redact(details)
    line = _CONTROL.sub(" ", details).strip()
    return line if len(line) <= _MAX_DETAILS else line[:_MAX_DETAILS] + "…"
