# SPDX-License-Identifier: Apache-2.0
"""Lines of a ledger, each of which names the digest of the line before it.

``prev`` of a line is the hexadecimal SHA-256 of the bytes of the preceding line without its
newline, so that no line can be changed, left out, put in or moved without changing all that follow.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from qr_sampler.records.line_kinds import FiniteTokenLine

__all__ = [
    "BLINDED_KINDS",
    "NOT_JSON",
    "ZERO_HEAD",
    "Item",
    "blinds",
    "body_of",
    "head_of",
    "line_of",
]

Item: TypeAlias = tuple[str, object]
"""What a line is made of: its kind, and its fields without ``n`` and ``prev``, as a dataclass
instance, a :class:`msgspec.Struct` or a dict with texts as keys."""

ZERO_HEAD: Final = "0" * 64
"""``prev`` of a line that nothing precedes."""

BLINDED_KINDS: Final = frozenset(
    {"sequence", "draw", "token", "discard", "forced", "undecided", "emission", "end"}
)
"""Kinds of lines of a ledger that tell of tokens, each of which has a ``blind``."""

NOT_JSON: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
"""What is raised where fields have no counterpart in JSON."""

_BLIND_BYTES: Final = 12
_BLIND_CHARACTERS: Final = 16

_encode: Final = msgspec.json.Encoder().encode


def blinds(count: int) -> list[str]:
    """Returns *count* texts of 96 random bits each, with which nobody can guess a line's bytes."""
    text = base64.urlsafe_b64encode(os.urandom(_BLIND_BYTES * count)).decode()
    return [text[at : at + _BLIND_CHARACTERS] for at in range(0, len(text), _BLIND_CHARACTERS)]


def line_of(kind: str, n: int, prev: str, fields: object, blind: str = "") -> bytes:
    r"""Returns a line, without the newline that ends it.

    Args:
        kind: What sort of line it is, a plain word.
        n: Its number in its file, from 0.
        prev: Head of what precedes it, 64 hexadecimal digits.
        fields: What it says, as in :data:`Item`.
        blind: One of :func:`blinds`; the line has none if it is empty.

    Raises:
        TypeError: When a value has no counterpart in JSON.
        ValueError: When a number is infinite or no number, or a text is not Unicode.

    Examples:
        >>> line_of("note", 1, "ab" * 32, {"text": "hello"})[:28]
        b'{"kind":"note","n":1,"prev":'
        >>> line_of("note", 1, "ab" * 32, {"u": float("nan")})
        Traceback (most recent call last):
        ...
        ValueError: a line of kind 'note' would hold nan, for which JSON has no number
    """
    body = body_of(kind, fields)
    if blind:
        start = f'{{"kind":"{kind}","n":{n},"prev":"{prev}","blind":"{blind}",'.encode()
    else:
        start = f'{{"kind":"{kind}","n":{n},"prev":"{prev}",'.encode()
    if body[:2] == b'{"':
        return start + body[1:]
    if body != b"{}":
        raise TypeError(f"the fields of a line of kind {kind!r} have no names")
    return start[:-1] + b"}"


def body_of(kind: str, fields: object) -> bytes:
    """Returns the fields of a line as JSON; arguments and errors as in :func:`line_of`."""
    body = _encode(fields)
    # The search takes as long as the encoding.
    if type(fields) is not FiniteTokenLine and b"null" in body:
        # That may be what has become of a number that is none.
        _refuse_non_finite(kind, fields)
    return body


def head_of(line: bytes) -> str:
    """Returns the digest of *line*, given without its newline: ``prev`` of the line after it."""
    return hashlib.sha256(line).hexdigest()


def _refuse_non_finite(kind: str, fields: object) -> None:
    for value in _values_in(fields):
        if value is None or isinstance(value, (str, int)):
            continue
        if not isinstance(value, float):
            _refuse_non_finite(kind, value)
        elif not math.isfinite(value):
            raise ValueError(
                f"a line of kind {kind!r} would hold {value}, for which JSON has no number"
            )


def _values_in(container: Any) -> Iterable[object]:
    """Returns what is directly in something that has been encoded."""
    if isinstance(container, Mapping):
        return container.values()
    if isinstance(container, Iterable):
        return () if isinstance(container, (bytes, bytearray)) else container
    fields = getattr(container, "__struct_fields__", getattr(container, "__dataclass_fields__", ()))
    return [getattr(container, name) for name in fields]
