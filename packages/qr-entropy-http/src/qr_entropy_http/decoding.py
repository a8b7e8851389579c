# SPDX-License-Identifier: Apache-2.0
"""Turns answers into bytes, or refuses them: nothing is guessed, repaired or left out."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final, NoReturn

from qr_entropy_http.exchange.exchange import Answer
from qr_entropy_http.presets.model import AnswerRule
from qr_entropy_http.presets.path import AnswerShapeError, value_at, values_at
from qr_sampler.errors import shown

__all__ = ["UnfitAnswerError", "bytes_of", "largest_body"]

JSON_TYPE: Final = "application/json"
ERROR_TYPES: Final = frozenset({"text/html", JSON_TYPE})
"""What a service answers with instead of raw bytes when it has none."""

LONGEST_INTEGER: Final = 20
"""Number of digits of the longest integer in an answer."""

FRAME: Final = 16_384
"""Characters of an answer beside its numbers."""


class UnfitAnswerError(ValueError):
    """An answer is not what was asked for.

    Args:
        reason: In what way, in plain words.
        decoded_bytes: How many random bytes it had all the same.
    """

    def __init__(self, reason: str, decoded_bytes: int = 0) -> None:
        super().__init__(reason)
        self.decoded_bytes = decoded_bytes


def largest_body(rule: AnswerRule, payload_bytes: int) -> int:
    """Returns the size in bytes of the largest answer with *payload_bytes* random bytes."""
    return (
        payload_bytes if rule.format == "raw" else FRAME + rule.characters_per_byte * payload_bytes
    )


def bytes_of(answer: Answer, rule: AnswerRule, payload_bytes: int) -> bytes:
    """Returns the random bytes in *answer*, exactly *payload_bytes* of them.

    Raises:
        UnfitAnswerError: When it has another status than 200 or another type, is malformed, does
            not say what it has to, or has more or fewer numbers, or numbers out of their range.
    """
    if answer.status != HTTPStatus.OK:
        raise UnfitAnswerError(f"its status is {answer.status}")
    _check_type(answer.content_type, rule)
    data = answer.body if rule.format == "raw" else _decoded(answer.body, rule)
    if len(data) != payload_bytes:
        raise UnfitAnswerError(
            f"it has {len(data)} random bytes instead of {payload_bytes}", len(data)
        )
    return data


def _check_type(content_type: str, rule: AnswerRule) -> None:
    if rule.content_types:
        fits = content_type in rule.content_types
    elif rule.format == "raw":
        fits = content_type not in ERROR_TYPES
    else:
        fits = content_type == JSON_TYPE
    if not fits:
        raise UnfitAnswerError(f"it is of type {content_type[:80]!r}")


def _decoded(body: bytes, rule: AnswerRule) -> bytes:
    document = _parsed(body)
    try:
        for path, expected in rule.require.items():
            _check_required(value_at(document, path), expected, path)
        return _DECODERS[rule.form](values_at(document, rule.numbers), rule)
    except AnswerShapeError as error:
        raise UnfitAnswerError(str(error)) from None


def _parsed(body: bytes) -> object:
    try:
        document: object = json.loads(
            body.decode(),
            object_pairs_hook=_without_duplicates,
            parse_int=_integer,
            parse_constant=_no_number,
        )
    except UnfitAnswerError:
        raise
    # The parser recurses once for each level of nesting.
    except RecursionError:
        raise UnfitAnswerError("it is nested too deeply") from None
    except ValueError:
        raise UnfitAnswerError("it is no JSON document") from None
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnfitAnswerError("one of its objects has a name twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise UnfitAnswerError("one of its numbers is too long")
    return int(digits)


def _no_number(constant: str) -> NoReturn:
    raise UnfitAnswerError(f"it has the number {constant}, which JSON does not know")


def _check_required(value: object, expected: object, path: str) -> None:
    # Of the same type: in Python 1 equals true.
    if type(value) is not type(expected) or value != expected:
        raise UnfitAnswerError(f"it says {path} = {shown(value)} instead of {shown(expected)}")


def _hexadecimal(values: Sequence[object], rule: AnswerRule) -> bytes:
    texts = [_text(value) for value in values]
    # bytes.fromhex() passes over white space.
    if not all(text.isalnum() for text in texts):
        raise UnfitAnswerError("its numbers are not hexadecimal") if any(texts) else _none()
    _check_whole(texts, 2 * rule.bytes_per_number)
    try:
        return bytes.fromhex("".join(texts))
    except ValueError:
        raise UnfitAnswerError("its numbers are not hexadecimal") from None


def _base64(values: Sequence[object], rule: AnswerRule) -> bytes:
    pieces = [_text(value) for value in values]
    try:
        # One by one: each has its own padding.
        return b"".join(base64.b64decode(piece.encode(), validate=True) for piece in pieces)
    except (UnicodeEncodeError, binascii.Error):
        raise UnfitAnswerError("its numbers are not in base64") from None


def _uint8(values: Sequence[object], rule: AnswerRule) -> bytes:
    return bytes(_ranged(value, 255) for value in values)


def _uint16(values: Sequence[object], rule: AnswerRule) -> bytes:
    order = rule.byte_order
    return b"".join(_ranged(value, 65_535).to_bytes(2, order) for value in values)


def _decimal(values: Sequence[object], rule: AnswerRule) -> bytes:
    texts = [_text(value) for value in values]
    if not all(text.isascii() and text.isdigit() and len(text) <= 3 for text in texts):
        raise UnfitAnswerError("its numbers are not decimal")
    return bytes(_ranged(int(text), 255) for text in texts)


def _bits(values: Sequence[object], rule: AnswerRule) -> bytes:
    texts = [value if isinstance(value, str) else str(_ranged(value, 1)) for value in values]
    digits = "".join(texts)
    if set(digits) - set("01") or len(digits) % 8:
        raise UnfitAnswerError("its bits are not whole bytes of zeros and ones")
    if any(len(text) != 1 for text in texts):
        _check_whole(texts, 8 * rule.bytes_per_number)
    return int(digits or "0", 2).to_bytes(len(digits) // 8, "big")


def _check_whole(texts: Sequence[str], digits: int) -> None:
    # Without its leading zeros a number is shorter. Answers in which none happens to be would be
    # read as well as any, and their bytes would not be uniform.
    if any(len(text) % digits for text in texts):
        raise UnfitAnswerError(f"one of its numbers does not have {digits} digits")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UnfitAnswerError(f"one of its numbers is {shown(value)} instead of a text")
    return value


def _ranged(value: object, largest: int) -> int:
    # A truth value is an integer in Python.
    if type(value) is not int or not 0 <= value <= largest:
        raise UnfitAnswerError(f"one of its numbers is {shown(value)}, not 0 to {largest}")
    return value


def _none() -> UnfitAnswerError:
    return UnfitAnswerError("it has no numbers")


_DECODERS: Final[dict[str, Callable[[Sequence[object], AnswerRule], bytes]]] = {
    "hex": _hexadecimal,
    "base64": _base64,
    "uint8": _uint8,
    "uint16": _uint16,
    "decimal": _decimal,
    "bits": _bits,
}
