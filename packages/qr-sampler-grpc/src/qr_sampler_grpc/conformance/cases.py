# SPDX-License-Identifier: Apache-2.0
"""The conformance cases as they are published, read from their file."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

__all__ = [
    "CASES_FILE",
    "ENTROPY_SERVICE",
    "Case",
    "CaseCall",
    "ExpectedAnswer",
    "SentRequest",
    "load_cases",
]

CASES_FILE: Final = Path(__file__).with_name("cases.json")
"""The published cases; the file explains how to read them."""

ENTROPY_SERVICE: Final = "/qr_entropy.EntropyService/"
"""Prefix of the methods that return random bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """One request of a call."""

    message: bytes
    """What is sent."""
    sequence_id: int = 0
    """The name that the request gives itself, 0 for none."""
    commitment: bytes = b""
    """The commitment that it carries, empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedAnswer:
    """What the answer to one request must be like; what is ``None`` or empty is not asked of it.

    What it must repeat of its request is the same everywhere and follows from the request.
    """

    data_bytes: int | None = None
    """Exact number of random bytes; ``None`` for a message of another service."""
    chunks: bool = False
    """Whether they may come in several messages."""
    message: bytes | None = None
    """The whole message."""
    contains: bytes = b""
    """Part of the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseCall:
    """One call of a case."""

    method: str
    """Full path of the method."""
    kind: Literal["unary", "stream"]
    """Whether the method takes and gives single messages or streams."""
    api_key: Literal["configured", "none", "wrong"]
    """Which API key is sent."""
    wait_for_answers: bool
    """Whether each request waits for the answer to the one before."""
    requests: tuple[SentRequest, ...]
    """What is sent."""
    status: frozenset[str]
    """Names of the statuses that the call may end with."""
    answers: tuple[ExpectedAnswer, ...]
    """What must come back, request by request, if the call ends with OK."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that a server must do, or should."""

    name: str
    """Its published id."""
    checks: str
    """What is checked, in a sentence."""
    why: str
    """Why it matters."""
    level: Literal["must", "should"]
    """Whether clients rely on it."""
    feature: str
    """Optional feature without which the case does not apply; empty for none."""
    cheap: bool
    """Whether it spends less than 200 bytes."""
    concurrent: bool
    """Whether the calls are made at once."""
    pause_s: float
    """Seconds between two calls that are not made at once."""
    rules: tuple[str, ...]
    """What the answers must satisfy together."""
    calls: tuple[CaseCall, ...]
    """What is called."""

    @property
    def data_bytes(self) -> int:
        """Random bytes that a conforming server sends."""
        return sum(answer.data_bytes or 0 for call in self.calls for answer in call.answers)

    @property
    def requests(self) -> int:
        """Requests for random bytes; health checks do not count."""
        asked = (call for call in self.calls if call.method.startswith(ENTROPY_SERVICE))
        return sum(len(call.requests) for call in asked)


def load_cases() -> tuple[Case, ...]:
    """Returns the published cases in their order.

    Examples:
        >>> load_cases()[0].name
        'length-1'
    """
    document = json.loads(CASES_FILE.read_text("utf-8"))
    return tuple(_case(entry) for entry in document["cases"])


def _case(entry: dict[str, Any]) -> Case:
    return Case(
        name=entry["id"],
        checks=entry["checks"],
        why=entry["why"],
        level=entry["level"],
        feature=entry.get("feature", ""),
        cheap=entry["cheap"],
        concurrent=entry.get("concurrent", False),
        pause_s=entry.get("pause_ms", 0) / 1000,
        rules=tuple(entry.get("rules", ())),
        calls=tuple(_call(call) for call in entry["calls"]),
    )


def _call(entry: dict[str, Any]) -> CaseCall:
    return CaseCall(
        method=entry["method"],
        kind=entry["kind"],
        api_key=entry.get("api_key", "configured"),
        wait_for_answers=entry.get("wait_for_answers", False),
        requests=tuple(_request(request) for request in entry["requests"]),
        status=frozenset(entry["status"]),
        answers=tuple(_answer(answer) for answer in entry["answers"]),
    )


def _request(entry: dict[str, Any]) -> SentRequest:
    fields = entry.get("fields", {})
    return SentRequest(
        message=bytes.fromhex(entry["hex"]),
        sequence_id=int(fields.get("sequence_id", 0)),
        commitment=b64decode(fields.get("commitment", "")),
    )


def _answer(entry: dict[str, Any]) -> ExpectedAnswer:
    return ExpectedAnswer(
        data_bytes=entry.get("data_bytes"),
        chunks=entry.get("chunks", False),
        message=bytes.fromhex(entry["message_hex"]) if "message_hex" in entry else None,
        contains=entry.get("contains_text", "").encode(),
    )
