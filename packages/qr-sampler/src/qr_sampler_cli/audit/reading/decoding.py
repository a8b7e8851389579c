# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a line to a record, or to what is wrong with it."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

import msgspec

from qr_sampler_cli.audit.reading.lines import LONGEST_LINE, RawLine
from qr_sampler_cli.audit.reading.redacted import opened
from qr_sampler_cli.audit.schema.fields import LARGEST
from qr_sampler_cli.audit.schema.lines import KINDS, KnownLine
from qr_sampler_cli.audit.schema.run_lines import Redacted

__all__ = ["Decoded", "decode", "decode_object"]

_FRONT: Final = ["kind", "n", "prev"]
_DIGEST: Final = re.compile("[0-9a-f]{64}")

_known: Final = msgspec.json.Decoder(KnownLine)
_any: Final = msgspec.json.Decoder()
_encode: Final = msgspec.json.Encoder().encode


class Decoded(NamedTuple):
    """A line of version 2."""

    raw: RawLine
    """The line as it stands in the file."""
    kind: str
    """Its kind, empty if it is no record."""
    n: int
    """Its number, -1 if it has none."""
    prev: str
    """The digest that it names, empty if it names none."""
    record: Any
    """The record, ``None`` if its kind is unknown or it does not fit its kind."""
    fault: str
    """What is wrong with it, empty if nothing is."""
    redacted: Redacted | None = None
    """The line as it stands, if its text was left out; :attr:`record` is then what is left."""

    @property
    def head(self) -> str:
        """What the line after it names."""
        return self.raw.head if self.redacted is None else self.redacted.sha256

    @property
    def counted_as(self) -> str:
        """The kind that a ``close`` counts it as."""
        return self.kind if self.redacted is None else self.redacted.of

    @property
    def is_readable(self) -> bool:
        """Whether it has a place in the chain."""
        return self.n >= 0 and bool(self.prev)


class _DuplicateKeyError(ValueError):
    """A JSON object has a key twice."""


def decode(raw: RawLine) -> Decoded:
    """Returns the record of a line of version 2."""
    values, fault = decode_object(raw)
    if values is None:
        return Decoded(raw, "", -1, "", None, fault)
    kind, n, prev = values.get("kind"), values.get("n"), values.get("prev")
    if not isinstance(kind, str):
        return Decoded(raw, "", -1, "", None, "its kind is missing")
    if type(n) is not int or not 0 <= n <= LARGEST:
        return Decoded(raw, kind, -1, "", None, fault or "it has no number n")
    if not isinstance(prev, str) or not _DIGEST.fullmatch(prev):
        return Decoded(raw, kind, n, "", None, fault or "prev is no SHA-256 digest")
    if not fault and list(values)[:3] != _FRONT:
        fault = "it does not begin with kind, n and prev"
    if kind not in KINDS:
        return Decoded(raw, kind, n, prev, None, fault)
    redacted = None
    try:
        record: Any = _known.decode(raw.data)
        if isinstance(record, Redacted):
            redacted = record
            record = opened(redacted)
        return Decoded(raw, kind, n, prev, record, fault, redacted)
    except msgspec.ValidationError as error:
        return Decoded(raw, kind, n, prev, None, fault or f"{kind}: {error}", redacted)


def decode_object(raw: RawLine) -> tuple[dict[str, Any] | None, str]:
    """Returns the JSON object of a line, if it holds one, and what is wrong with it."""
    if raw.size > LONGEST_LINE:
        return None, f"it has {raw.size:,} bytes; {LONGEST_LINE:,} are the most"
    try:
        values = _any.decode(raw.data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        return None, f"it is no JSON: {_bounded(str(error))}"
    if not isinstance(values, dict):
        return None, "it is no JSON object"
    # What encodes to the same bytes has no key twice. Another writer may use other spaces.
    try:
        if _encode(values) != raw.data:
            json.loads(raw.data, object_pairs_hook=_without_duplicates)
    except _DuplicateKeyError as error:
        return values, str(error)
    except (ValueError, OverflowError, RecursionError) as error:
        return values, f"it is no plain JSON: {_bounded(str(error))}"
    return values, ""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _DuplicateKeyError(f"it has the key {_bounded(twice)!r} twice")
    return values


def _bounded(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
