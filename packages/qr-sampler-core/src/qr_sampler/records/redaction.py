# SPDX-License-Identifier: Apache-2.0
"""Ledgers without the text that they tell of, whose chains still close.

A line that gives tokens away is replaced by one that has the digest of the original. That digest
must not give them away itself: with all other fields in the open, anybody could try every token of
a vocabulary. So the original has a ``blind``, which its replacement lacks. For the same reason the
digests that cover tokens have to go, and signatures over them.

What stays, such as u, ranks and probabilities, tells nothing of a text to those who know nothing
else. Whoever has the model and guesses the prompt can tell whether the guess is right, and what the
text is. Whoever has the commitments from elsewhere, such as the log of the server that got them,
can try token after token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from qr_sampler.errors import ConfigError
from qr_sampler.records.chain import head_of, line_of
from qr_sampler.records.line_kinds import (
    DiscardLine,
    DrawLine,
    EmissionLine,
    EndLine,
    ForcedLine,
    SequenceLine,
    TokenLine,
    UndecidedLine,
)

__all__ = ["KEPT_KINDS", "redact"]

KEPT_KINDS: Final = frozenset(
    {"genesis", "model", "bypass", "clock", "gap", "anchor", "close", "redacted"}
)
"""Kinds of lines that tell of no token, and stay as they are."""

_HIDDEN: Final = frozenset({"token_id", "row_digest", "rows", "link", "commitment", "signature"})
"""Fields that give tokens away."""

_OPEN: Final = {
    line.kind: frozenset(line.__struct_fields__) - _HIDDEN
    for line in (
        DiscardLine,
        DrawLine,
        EmissionLine,
        EndLine,
        ForcedLine,
        SequenceLine,
        TokenLine,
        UndecidedLine,
    )
}
"""By kind of a line that tells of tokens, the fields that stay. Nobody knows what others tell."""

_OPEN_FIELDS: Final = (
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "min_tokens",
)
"""Those of the ordinary fields of a request that name no tokens."""

_OPEN_STOPS: Final = ("max_tokens", "max_length", "min_tokens", "stop_strings")
"""Likewise of what ends a sequence."""

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def redact(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the lines of a ledger without token ids, and without what gives them away.

    Lines of unknown kinds lose all their fields, and what is no line is overwritten.

    Args:
        lines: The lines of one file of version 2, in order, without their newlines.

    Raises:
        ConfigError: When a line that would have to be replaced has no ``blind``, as in ledgers of
            earlier versions.
    """
    before: bytes | None = None
    for line in lines:
        if before is not None:
            yield _overwritten(before) if _is_torn(before, line) else _redacted(before)
        before = line
    if before is not None:
        yield _redacted(before)


def _redacted(line: bytes) -> bytes:
    try:
        values = _decode(line)
        kind, n, prev = str(values.pop("kind")), values.pop("n"), values.pop("prev")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return _overwritten(line)
    if kind in KEPT_KINDS or (kind == "draw" and not values.get("commitment")):
        return line
    if not values.get("blind"):
        raise ConfigError(
            f"line {n} of kind {kind[:40]!r} has no blind: its digest would give away what is "
            "left out; a ledger of this age can be published whole or not at all"
        )
    fields = _open_of(kind, values)
    made = {"sha256": head_of(line), "of": kind, "fields": fields}
    return line_of("redacted", n, prev, made)


def _open_of(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in values.items() if name in _OPEN.get(kind, ())}
    if kind == "sequence":
        fields["fields"] = _among(values.get("fields"), _OPEN_FIELDS)
        fields["stop"] = _among(values.get("stop"), _OPEN_STOPS)
    return fields


def _among(values: Any, names: Iterable[str]) -> dict[str, Any]:
    if not isinstance(values, dict):
        return {}
    return {name: values[name] for name in names if name in values}


def _is_torn(line: bytes, following: bytes) -> bool:
    """Whether *line* is the rest of a write cut short, which a gap tells of."""
    if not following.startswith(b'{"kind":"gap"'):
        return False
    try:
        return 0 < len(line) == _decode(following).get("torn_bytes")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _overwritten(line: bytes) -> bytes:
    return b"x" * len(line)
