# SPDX-License-Identifier: Apache-2.0
"""What each service expects and answers, as its documentation says."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["PROTOCOLS", "Protocol", "Question", "Reply"]

Generate = Callable[[int], bytes]
"""Makes so many random bytes now."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it leaves."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one service is asked."""

    method: str
    path: str
    answer: Callable[[Question, Generate], Reply]
    """Answers a request with the right method, path and key."""
    key_header: str = ""
    """Header with the key, in lower case; empty for a service that takes none."""
    key_prefix: str = ""
    no_key: Reply = Reply(403, b"")
    """Answer to a request without the right key."""
    used_up: Reply = Reply(429, b'{"message":"Limit Exceeded"}')
    """Answer to a request beyond a quota."""


def _json(document: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode())


def _amount(question: Question, name: str, most: int) -> int | None:
    """Returns a number of the query from 1 to *most*, ``None`` if it is none."""
    text = question.query.get(name, "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    return number if 1 <= number <= most else None


def _anu(largest_size: int) -> Callable[[Question, Generate], Reply]:
    def answer(question: Question, generate: Generate) -> Reply:
        length = _amount(question, "length", 1024)
        size = _amount(question, "size", largest_size)
        if length is None or size is None or question.query.get("type") != "hex16":
            return _json({"success": False, "message": "bad parameters"}, 400)
        data = generate(2 * size * length)
        blocks = [data[start : start + 2 * size].hex() for start in range(0, len(data), 2 * size)]
        return _json(
            {"success": True, "type": "hex16", "length": str(length), "size": size, "data": blocks}
        )

    return answer


def _outshift(question: Question, generate: Generate) -> Reply:
    try:
        wanted = json.loads(question.body)
        blocks, bits = wanted["number_of_blocks"], wanted["bits_per_block"]
    except (ValueError, TypeError, KeyError):
        return _json({"error": "bad request"}, 400)
    fits = wanted.get("encoding") == "raw" and wanted.get("format") == "all" and bits == 8
    if not fits or type(blocks) is not int or not 1 <= blocks <= 1000:
        return _json({"error": "bad request"}, 400)
    numbers = [
        {
            "decimal": str(number),
            "binary": f"{number:08b}",
            "hexadecimal": f"{number:02x}",
            "octal": f"{number:o}",
        }
        for number in generate(blocks)
    ]
    return _json({"encoding": "raw", "random_numbers": numbers})


def _lfd(question: Question, generate: Generate) -> Reply:
    length = _amount(question, "length", 10**6)
    if length is None or question.query.get("format") != "HEX":
        return _json({"error": "bad parameters"}, 400)
    return _json({"length": length, "qrn": generate(length).hex()})


def _quantis(question: Question, generate: Generate) -> Reply:
    size = _amount(question, "size", 10**7)
    if size is None:
        return Reply(400, b"bad size", "text/plain")
    return Reply(200, generate(size), "application/octet-stream")


def _quandela(question: Question, generate: Generate) -> Reply:
    count = _amount(question, "count", 10**6)
    if count is None:
        missing = {"query": {"count": ["Missing data for required field."]}}
        return _json({"detail": missing, "error": "Bad Request"}, 400)
    data = generate(count)
    # What is asked for may come from several jobs, each with its own padding.
    pieces = [data[: count // 2], data[count // 2 :]]
    jobs = [
        {
            "id": f"00000000-0000-4000-8000-{index:012d}",
            "chsh": 2.7,
            "min_entropy": 0.9,
            "bytes": base64.b64encode(piece).decode(),
        }
        for index, piece in enumerate(pieces)
    ]
    return _json({"jobs": jobs})


def _quanttp(question: Question, generate: Generate) -> Reply:
    length = _amount(question, "length", 2**31 - 1)
    if length is None or len(question.query.get("device_id", "")) != 8:
        return Reply(400, b"Requires 8 digit serial", "text/plain; charset=utf-8")
    return _json(generate(length).hex())


def _openentropy(question: Question, generate: Generate) -> Reply:
    length = _amount(question, "length", 65_536)
    query = question.query
    if length is None or query.get("type") != "uint8":
        return _json({"success": False, "data": [], "error": "bad parameters"}, 400)
    return _json(
        {
            "type": "uint8",
            "length": length,
            "value_count": length,
            "data": list(generate(length)),
            "success": True,
            "conditioned": query.get("conditioning") != "raw",
            "source": query.get("source"),
        }
    )


def _qrandom(question: Question, generate: Generate) -> Reply:
    count = _amount(question, "n", 10**4)
    if count is None or (question.query.get("min"), question.query.get("max")) != ("0", "65535"):
        return _json({"message": "bad parameters"}, 400)
    return _json(
        {
            "id": "0",
            "message": "Request",
            "numbers": list(struct.unpack(f">{count}H", generate(2 * count))),
            "signature": "not a signature",
            "resultType": "randomIntArray",
        }
    )


_FORBIDDEN: Final = Reply(403, b'{"message":"Forbidden"}')
_LEGACY_LIMIT: Final = Reply(
    200, b"The QRNG API is limited to 1 requests per minute. For more requests see AWS.",
    "text/html",
)  # fmt: skip
_NO_CREDITS: Final = Reply(401, b'{"detail":{},"error":"Not enough credits"}')
_NO_TOKEN: Final = Reply(401, b'{"detail":{},"error":"Invalid or expired job token"}')

PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "anu": Protocol("GET", "/", _anu(10), "x-api-key", no_key=_FORBIDDEN),
    "anu_legacy": Protocol("GET", "/API/jsonI.php", _anu(1024), used_up=_LEGACY_LIMIT),
    "lfd": Protocol("GET", "/qrng_api/qrng", _lfd),
    "openentropy": Protocol("GET", "/api/v1/random", _openentropy),
    "outshift": Protocol(
        "POST", "/api/v1/random_numbers", _outshift, "x-id-api-key",
        no_key=Reply(401, b'{"message":"Unauthorized"}'),
    ),
    "qrandom": Protocol("GET", "/api/random/ints", _qrandom),
    "quandela": Protocol(
        "GET", "/qt/qrng/bytes", _quandela, "authorization", "Bearer ",
        no_key=_NO_TOKEN, used_up=_NO_CREDITS,
    ),
    "quantis_appliance": Protocol("GET", "/api/2.0/streambytes", _quantis),
    "quanttp": Protocol("GET", "/api/json/randhex", _quanttp),
}  # fmt: skip
"""By the name of the preset."""
