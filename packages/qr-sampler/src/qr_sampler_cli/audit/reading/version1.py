# SPDX-License-Identifier: Apache-2.0
"""Lines of version 1, told as lines of version 2 so that the same rungs judge them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from qr_sampler_cli.audit.reading.decoding import decode_object
from qr_sampler_cli.audit.reading.lines import RawLine
from qr_sampler_cli.audit.rungs.chain import NO_LINE
from qr_sampler_cli.audit.schema.lines import KnownLine
from qr_sampler_cli.audit.schema.token_lines import Discard, Draw, Token

__all__ = ["ENTRY_KINDS", "Version1"]

ENTRY_KINDS: Final = (
    "genesis",
    "token",
    "discard",
    "forced",
    "undecided",
    "emission",
    "bypass",
    "gap",
)
"""Kinds of version 1."""

_GIVEN: Final = frozenset({"n", "prev", "blind", "draw", "offset", "row_draw"})
_TOKEN_FIELDS: Final = frozenset(Token.__struct_fields__) - _GIVEN
_DISCARD_FIELDS: Final = frozenset(Discard.__struct_fields__) - _GIVEN
_DRAW_FIELDS: Final = (
    frozenset(Draw.__struct_fields__)
    - _GIVEN
    - {
        "bytes",
        "requests",
        "data_sha256",
        "signature",
        "sequence_id",
        "health",
        "rows",
    }
)


class _DrawKey(NamedTuple):
    source: str
    t_request_ns: int
    t_received_ns: int


class Version1:
    """Makes the lines of version 2 that a line of version 1 stands for."""

    def __init__(self) -> None:
        self._sequences: set[str] = set()
        self._draws: dict[_DrawKey, tuple[int, int]] = {}
        """Number and bytes left of every draw that has bytes left."""
        self._next_draw = 0

    def decode(self, raw: RawLine) -> tuple[str, list[KnownLine], str]:
        """Returns the kind of a line, what it stands for, and what is wrong with it."""
        values, fault = decode_object(raw)
        if values is None:
            return "", [], fault
        kind = values.get("kind")
        if not isinstance(kind, str):
            return "", [], fault or "its kind is missing"
        if kind not in ENTRY_KINDS:
            return kind, [], fault
        try:
            return kind, [msgspec.convert(each, KnownLine) for each in self._told(values)], fault
        except KeyError as error:
            return kind, [], fault or f"{kind}: it lacks {error}"
        except (msgspec.ValidationError, TypeError) as error:
            return kind, [], fault or f"{kind}: {error}"

    def _told(self, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        kind = values["kind"]
        if kind == "genesis":
            yield _line(
                "genesis",
                {**values, "sources": [], "host": {}, "files": {}, "boot_id": None},
            )
        elif kind == "gap":
            yield _line(
                "gap",
                {
                    "reason": values["reason"],
                    "missing": {"lines": values["missing_lines"]},
                    "since_wall_ns": None,
                    "torn_bytes": 0,
                    "wall_time_ns": values["wall_time_ns"],
                },
            )
        elif kind == "bypass":
            yield _line(kind, values)
        else:
            if values["sequence"]:
                yield from self._sequence(values)
            if kind == "token":
                yield from self._token(values)
            elif kind == "discard":
                yield self._discard(values)
            else:
                dropped = ("request_key", "trial", "condition")
                yield _line(kind, {k: v for k, v in values.items() if k not in dropped})

    def _sequence(self, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        name = values["sequence"]
        if name in self._sequences:
            return
        self._sequences.add(name)
        options = {
            option: values[field]
            for option, field in (
                ("signal_amplifier_type", "amplifier"),
                ("temperature_strategy", "temperature_strategy"),
            )
            if field in values
        }
        stop: dict[str, Any] = {
            "token_ids": [],
            "max_tokens": None,
            "max_length": None,
            "min_tokens": None,
        }
        yield _line(
            "sequence",
            {
                "sequence": name,
                "request_key": values["request_key"],
                "trial": values.get("trial"),
                "condition": values.get("condition"),
                "prompt_tokens": None,
                "prompt_digest": "",
                "options": options,
                "fields": {},
                "stop": {**stop, "stop_strings": False},
                "wall_time_ns": values["wall_time_ns"],
            },
        )

    def _token(self, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        number = None
        # Several numbers come from several draws, of which only the times are recorded.
        if values.get("uniforms") is None:
            key = _key(values)
            if key not in self._draws:
                yield self._draw(values, key)
            number = self._spend(key, values["block_bytes"])
        fields = {name: values[name] for name in _TOKEN_FIELDS if name in values}
        yield _line("token", {**fields, "draw": number, "offset": None})

    def _draw(self, values: dict[str, Any], key: _DrawKey) -> dict[str, Any]:
        number, self._next_draw = self._next_draw, self._next_draw + 1
        size = values["draw_bytes"]
        self._draws[key] = (number, size)
        return _line(
            "draw",
            {
                **{name: values[name] for name in _DRAW_FIELDS},
                "draw": number,
                "bytes": size,
                "requests": values["draw_requests"],
                "data_sha256": NO_LINE,
                "signature": "",
            },
        )

    def _spend(self, key: _DrawKey, size: int) -> int:
        number, left = self._draws.pop(key)
        if left > size:
            self._draws[key] = (number, left - size)
        return number

    def _discard(self, values: dict[str, Any]) -> dict[str, Any]:
        number = None
        if values["t_request_ns"] is not None:
            key = _key(values)
            if key in self._draws:
                number = self._spend(key, values["block_bytes"])
        fields = {name: values[name] for name in _DISCARD_FIELDS if name in values}
        return _line("discard", {**fields, "draw": number, "offset": None})


def _line(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "kind": kind, "n": 0, "prev": NO_LINE}


def _key(values: dict[str, Any]) -> _DrawKey:
    return _DrawKey(values["source"], values["t_request_ns"], values["t_received_ns"])
