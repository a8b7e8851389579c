# SPDX-License-Identifier: Apache-2.0
"""Judges requests by their headers, and finds the text of a mark in their bodies."""

from __future__ import annotations

import json
import re
from email.message import Message
from http import HTTPStatus
from typing import Final

from qr_sampler_lab.experiments.marking.key import MarkKey
from qr_sampler_lab.experiments.marking.place import is_loopback

__all__ = ["LARGEST_BODY", "RefusedError", "body_length", "check_host", "check_sender", "mark_text"]

LARGEST_BODY: Final = 4096
"""Most bytes of the body of a request."""

_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:/\[\]@]+))(?::\d{1,5})?")
_CHARSETS: Final = ("utf-8", "us-ascii")


class RefusedError(Exception):
    """A request is refused.

    Args:
        status: The status of the answer.
        reason: What the client is told.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def check_host(headers: Message, *, encrypted: bool) -> None:
    """Refuses requests to a name that is not this machine's, if nothing is encrypted.

    A page of a stranger can have the name of its own server resolve to 127.0.0.1, and is then of
    one origin with whatever listens there (DNS rebinding). It cannot have a certificate for it.

    Raises:
        RefusedError: For another name, or if there is not exactly one.
    """
    host = _only(headers, "Host")
    found = _HOST.fullmatch(host)
    if found is None:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The request has no valid header Host.")
    if not encrypted and not is_loopback(found["ipv6"] or found["host"]):
        raise RefusedError(
            HTTPStatus.MISDIRECTED_REQUEST, "Marks are taken here for 127.0.0.1 and localhost only."
        )


def check_sender(headers: Message, *, encrypted: bool, key: MarkKey | None) -> None:
    """Refuses marks that pages of other sites send, and those without the key.

    Browsers say where a request comes from; programs need not.

    Raises:
        RefusedError: For them.
    """
    own = f"{'https' if encrypted else 'http'}://{_only(headers, 'Host')}"
    origin = _only(headers, "Origin")
    site = _only(headers, "Sec-Fetch-Site")
    if origin.lower() not in ("", own.lower()) or site not in ("", "none", "same-origin"):
        raise RefusedError(HTTPStatus.FORBIDDEN, "Pages of other sites cannot write marks.")
    if key is not None and not key.is_in(_only(headers, "Authorization")):
        raise RefusedError(HTTPStatus.UNAUTHORIZED, "The key is missing or wrong.")


def body_length(headers: Message) -> int:
    """Returns the number of bytes of a body.

    Raises:
        RefusedError: When it is not told, or too large.
    """
    length = _only(headers, "Content-Length")
    if "Transfer-Encoding" in headers or not length:
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "Give the body a Content-Length.")
    if re.fullmatch("[0-9]{1,18}", length, re.ASCII) is None:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The Content-Length is no number.")
    if int(length) > LARGEST_BODY:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{LARGEST_BODY:,} bytes are the most."
        )
    return int(length)


def mark_text(headers: Message, body: bytes) -> str:
    """Returns the text that *body* holds, as text or as JSON, without space around it.

    Raises:
        RefusedError: When it holds none.
    """
    _only(headers, "Content-Type")
    kind = headers.get_content_type() if "Content-Type" in headers else ""
    charset = headers.get_content_charset("utf-8")
    if kind not in ("text/plain", "application/json") or charset not in _CHARSETS:
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send text/plain or application/json in UTF-8."
        )
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The body is not UTF-8.") from None
    return (text if kind == "text/plain" else _text_in(text)).strip()


def _text_in(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The body is no JSON.") from None
    if (
        not isinstance(value, dict)
        or value.keys() != {"text"}
        or not isinstance(value["text"], str)
    ):
        raise RefusedError(HTTPStatus.BAD_REQUEST, 'Send JSON of the form {"text": "…"}.')
    return value["text"]


def _only(headers: Message, name: str) -> str:
    """Returns the value of a header, empty if it is not there.

    Raises:
        RefusedError: When it is there twice: whoever stands between may have judged the other.
    """
    values = headers.get_all(name, [])
    if len(values) > 1:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"The header {name} is there twice.")
    return str(values[0]).strip() if values else ""
