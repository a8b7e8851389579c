# SPDX-License-Identifier: Apache-2.0
"""What an answer means that holds no numbers."""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, NamedTuple

from qr_entropy_http.exchange.exchange import LARGEST_ERROR, Answer
from qr_entropy_http.presets.model import ErrorRule, Preset
from qr_sampler.foreign import plain_text

__all__ = ["LONGEST_PAUSE_S", "Refusal", "refusal_of", "retry_after_s"]

LONGEST_PAUSE_S: Final = 2_678_400.0
"""Longest pause that a service can ask for, in seconds: 31 days."""

QUOTA_PAUSE_S: Final = 5.0
"""Pause after a used-up quota whose end the service does not tell."""

KEY_PAUSE_S: Final = 60.0
"""Pause after a key was not accepted: asking again for every token is of no use, and looks like
guessing keys."""

LARGEST_SEARCHED: Final = 4096
"""Number of bytes of an answer in which a rule's text is looked for."""

LONGEST_QUOTE: Final = 200
"""Number of characters of an answer that are quoted."""

_MEANINGS: Final = {401: "key", 403: "key", 407: "proxy", 429: "quota", 503: "busy"}
"""What a status means where the preset does not say more, by RFC 9110 and RFC 6585."""

_PAUSES_S: Final = {"quota": QUOTA_PAUSE_S, "key": KEY_PAUSE_S}

_WORDS: Final = {
    "quota": "has reached a limit; wait until it recovers, or draw less with QR_SAMPLE_COUNT",
    "key": "does not accept the API key, or it has expired; renew it in the file that "
    "QR_HTTP_KEY_FILE names",
    "no key": "asks for an API key; write it into a file and name that in QR_HTTP_KEY_FILE",
    "empty": "has no random bytes at present",
    "busy": "is not ready to serve",
    "proxy": "is behind a proxy that refuses; this source uses none",
    "redirect": "redirects elsewhere, which is not followed; correct QR_HTTP_URL",
    "failed": "has failed",
    "refused": "refuses the request; correct QR_HTTP_URL, QR_HTTP_PARAMETERS or the preset",
}


class Refusal(NamedTuple):
    """Why there are no numbers."""

    reason: str
    """What the service means and what to do, in plain words."""
    pause_s: float | None
    """For how many seconds it is left alone; ``None`` if that is not asked for."""
    by_key: bool
    """Whether another key may help."""


def refusal_of(
    answer: Answer, preset: Preset, secrets: tuple[str, ...], *, has_key: bool
) -> Refusal | None:
    """Returns what *answer* means, ``None`` if it is one with numbers.

    Args:
        answer: What the service has sent.
        preset: What is known of it.
        secrets: Texts that are masked where the answer is quoted.
        has_key: Whether a key was sent.
    """
    rule = _rule_for(answer, preset)
    if rule is None and answer.status == HTTPStatus.OK:
        return None
    meaning = rule.means if rule else _meaning_of(answer.status)
    asked_s = retry_after_s(answer.headers.get("retry-after", ""))
    if asked_s is None:
        asked_s = (rule.retry_after_s if rule else None) or _PAUSES_S.get(meaning)
    words = _WORDS["no key" if meaning == "key" and not has_key else meaning]
    return Refusal(f"{words}{_quote(answer, secrets)}", asked_s, meaning == "key")


def retry_after_s(value: str, clock: Callable[[], float] = time.time) -> float | None:
    """Returns the seconds that a ``Retry-After`` header asks to wait, by RFC 9110, section 10.2.3.

    Args:
        value: A number of seconds, or a date.
        clock: Seconds since 1970.

    Returns:
        0 to :data:`LONGEST_PAUSE_S`; ``None`` if the header says nothing.

    Examples:
        >>> retry_after_s("120"), retry_after_s("soon")
        (120.0, None)
        >>> retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT", lambda: 946684789.0)
        10.0
    """
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) <= 12:
        wait_s = float(text)
    else:
        try:
            # Of the forms of a date, that of asctime() names no zone; all of them mean GMT.
            wait_s = timegm(parsedate_to_datetime(text).utctimetuple()) - clock()
        except (IndexError, OverflowError, TypeError, ValueError):
            return None
    return min(max(wait_s, 0.0), LONGEST_PAUSE_S)


def _rule_for(answer: Answer, preset: Preset) -> ErrorRule | None:
    rules = [rule for rule in preset.errors if rule.status == answer.status]
    text = answer.body[:LARGEST_SEARCHED].decode("latin-1").lower() if rules else ""
    return next((rule for rule in rules if rule.contains.lower() in text), None)


def _meaning_of(status: int) -> str:
    if status in _MEANINGS:
        return _MEANINGS[status]
    if 300 <= status < 400:
        return "redirect"
    return "failed" if status >= 500 else "refused"


def _without_part(body: bytes, secrets: tuple[str, ...]) -> bytes:
    """Returns *body* without the beginning of a secret at its end, where it may have been cut."""
    if len(body) < LARGEST_ERROR:
        return body
    starts = (
        secret[:length].encode() for secret in secrets for length in range(len(secret) - 1, 0, -1)
    )
    return body.removesuffix(next((start for start in starts if body.endswith(start)), b""))


def _quote(answer: Answer, secrets: tuple[str, ...]) -> str:
    body = _without_part(answer.body, secrets)
    words = plain_text(body, secrets, limit=LONGEST_QUOTE)
    return f" (HTTP {answer.status}: {words})" if words else f" (HTTP {answer.status})"
