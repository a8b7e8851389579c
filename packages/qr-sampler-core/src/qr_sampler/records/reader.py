# SPDX-License-Identifier: Apache-2.0
"""Reads ledgers of both versions, one line at a time.

Lines of version 2 leave out what is constant for a draw or a sequence, and what has its default.
Here they are whole again: with all fields of the record of their kind, as version 1 had them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec

from qr_sampler.records import (
    DiscardRecord,
    EmissionRecord,
    ForcedRecord,
    Record,
    TokenSamplingRecord,
    UndecidedRecord,
)

__all__ = ["LONGEST_LINE", "JoinedLines", "LedgerLine", "lines_in", "read_ledger"]

LONGEST_LINE: Final = 2**23
"""Number of bytes up to which a line is read; one with more is no record."""

_SHOWN_BYTES: Final = 200
"""Number of bytes that are kept of a longer one."""

_PIECE_BYTES: Final = 2**16
"""Number of bytes of its rest that are skipped at once."""

MOST_DRAWS: Final = 2**14
"""Number of latest draws that lines can be joined with."""

MOST_SEQUENCES: Final = 2**16
"""Number of latest sequences that lines can be joined with."""

_RECORDS: Final[tuple[type[Record], ...]] = (
    DiscardRecord,
    EmissionRecord,
    ForcedRecord,
    TokenSamplingRecord,
    UndecidedRecord,
)
_JOINED: Final = {kind.kind: kind.columns() for kind in _RECORDS}
"""By kind of a line that names a draw or a sequence, the fields of its record."""

_DEFAULTS: Final = {
    "baseline": "",
    "row_digest": "",
    "commitment": "",
    "fallback_reason": "",
    "emitted": True,
    "jit": True,
    "health": "untested",
}
"""What a field that is left out means; ``None`` for all others."""

_OF_DRAW: Final = {
    "source": "source",
    "source_distribution": "source_distribution",
    "source_version": "source_version",
    "fallback": "fallback",
    "fallback_reason": "fallback_reason",
    "bytes": "draw_bytes",
    "requests": "draw_requests",
    "device_id": "device_id",
    "device_timestamp_ns": "device_timestamp_ns",
    "commitment": "commitment",
    "echo_verified": "echo_verified",
    "signature_verified": "signature_verified",
    "health": "health",
    "t_logits_ns": "t_logits_ns",
    "t_request_ns": "t_request_ns",
    "t_received_ns": "t_received_ns",
    "wall_time_ns": "wall_time_ns",
}
"""Which field of a record each field of a draw is."""

_decode: Final = msgspec.json.Decoder().decode


class LedgerLine(NamedTuple):
    """A line of a ledger file."""

    number: int
    """Its number in the file as editors count, from 1."""
    data: bytes
    """Its bytes, without the newline; only the first of one that is longer than is read."""
    values: dict[str, Any] | None
    """Its fields; ``None`` if it is not a JSON object with a ``kind``: a full disk tears lines."""


def read_ledger(
    path: Path, on_unreadable: Callable[[LedgerLine], object] | None = None
) -> Iterator[dict[str, Any]]:
    """Yields what the lines of a file say, those of version 2 joined as :class:`JoinedLines` does.

    Memory does not grow with the file. Lines of unknown kinds are yielded as they stand.

    Args:
        path: The file. One that is being written is read as far as it goes.
        on_unreadable: Called with each line that is no record, and left out.

    Raises:
        OSError: When the file cannot be read.
    """
    joined = JoinedLines()
    with path.open("rb") as file:
        for line in lines_in(file):
            if line.values is not None:
                yield joined.joined(line.values)
            elif on_unreadable is not None:
                on_unreadable(line)


def lines_in(file: BinaryIO) -> Iterator[LedgerLine]:
    """Yields the lines of an open file that are not empty, as they stand.

    They end at newline bytes and nowhere else: a text may contain what ends a line in Unicode.
    """
    number = 0
    while data := file.readline(LONGEST_LINE):
        number += 1
        whole = data.endswith(b"\n") or len(data) < LONGEST_LINE
        if not whole:
            data = data[:_SHOWN_BYTES]
            while (rest := file.readline(_PIECE_BYTES)) and not rest.endswith(b"\n"):
                pass
        data = data.removesuffix(b"\n")
        if data.strip():
            yield LedgerLine(number, data, _values(data) if whole else None)


def _values(data: bytes) -> dict[str, Any] | None:
    try:
        values = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        return None
    return values


class JoinedLines:
    """Completes the lines of a file, given in order, with what earlier ones say.

    Lines of the first version, which say everything themselves, stay as they are. A redacted line
    says what is left of its original; the ``token_id`` of a token is then ``None``. Nothing says
    ``blind``, which means nothing.

    A token, a discard, a ``forced``, ``undecided`` or ``emission`` line gets all the fields that
    its record has in memory, and keeps ``draw`` and ``offset``. Where the line of its draw or its
    sequence is missing, which a gap may explain, what that would have said is ``None``.
    """

    def __init__(self) -> None:
        self._draws: dict[object, Mapping[str, Any]] = {}
        self._sequences: dict[object, Mapping[str, Any]] = {}
        self._joins = False
        """Whether what stands in lines of their own has to be filled in."""

    def joined(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns what a line says, completed.

        Args:
            values: Its fields as they stand.
        """
        if values["kind"] == "redacted":
            values = _opened(values)
        if "blind" in values:
            values = {name: value for name, value in values.items() if name != "blind"}
        kind = values["kind"]
        if kind == "genesis":
            self._joins = values.get("schema_version", 1) != 1
        elif kind == "draw":
            self._joins = True
            known = {own: values[name] for name, own in _OF_DRAW.items() if name in values}
            _keep(self._draws, values.get("draw"), known, MOST_DRAWS)
        elif kind == "sequence":
            self._joins = True
            _keep(self._sequences, values.get("sequence"), _of_sequence(values), MOST_SEQUENCES)
        elif self._joins and kind in _JOINED:
            return self._completed(values)
        return values

    def _completed(self, values: dict[str, Any]) -> dict[str, Any]:
        merged = {
            **_kept(self._sequences, values, "sequence"),
            **_kept(self._draws, values, "draw"),
        }
        merged.update(values)
        if "row_draw" in values:
            told = _kept(self._draws, values, "row_draw")
            merged.update({name: told.get(name) for name in ("commitment", "echo_verified")})
        uniforms = values.get("uniforms")
        if isinstance(uniforms, list):
            merged.update(self._fallback_among(uniforms))
            merged.update(self._suspect_among(uniforms))
        columns = _JOINED[values["kind"]]
        record = {name: merged.get(name, _DEFAULTS.get(name)) for name in columns}
        # Bytes that belong to no sequence belong to no request.
        if record.get("request_key") is None:
            record["request_key"] = ""
        rest = {name: value for name, value in values.items() if name not in record}
        return {"kind": values["kind"], **record, **rest}

    def _fallback_among(self, uniforms: list[Any]) -> dict[str, Any]:
        """Returns whether any of the numbers of a token is a fallback's, and why."""
        for uniform in uniforms:
            if isinstance(uniform, dict) and uniform.get("fallback"):
                reason = _kept(self._draws, uniform, "draw").get("fallback_reason", "")
                return {"fallback": True, "fallback_reason": reason}
        return {"fallback": False, "fallback_reason": ""}

    def _suspect_among(self, uniforms: list[Any]) -> dict[str, Any]:
        """Returns that a token is suspect if the bytes of any of its numbers are."""
        for uniform in uniforms:
            if isinstance(uniform, dict):
                health = _kept(self._draws, uniform, "draw").get("health")
                if health == "suspect":
                    return {"health": health}
        return {}


def _opened(values: dict[str, Any]) -> dict[str, Any]:
    """Returns what a redacted line says, under the kind that its original has."""
    kind, fields = values.get("of"), values.get("fields")
    if not isinstance(kind, str) or not isinstance(fields, dict):
        return values
    return {**fields, "kind": kind, "n": values.get("n"), "prev": values.get("prev")}


def _of_sequence(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a line about a sequence says of its tokens."""
    options = values.get("options")
    known = options if isinstance(options, dict) else {}
    return {
        "request_key": values.get("request_key"),
        "trial": values.get("trial"),
        "condition": values.get("condition"),
        "amplifier": known.get("signal_amplifier_type"),
        "temperature_strategy": known.get("temperature_strategy"),
    }


def _keep(
    kept: dict[object, Mapping[str, Any]], key: object, known: Mapping[str, Any], most: int
) -> None:
    """Keeps what is *known* under *key*, as the latest of at most *most*."""
    if not isinstance(key, (str, int)):
        return
    kept.pop(key, None)
    kept[key] = known
    if len(kept) > most:
        del kept[next(iter(kept))]


def _kept(
    kept: Mapping[object, Mapping[str, Any]], values: Mapping[str, Any], name: str
) -> Mapping[str, Any]:
    """Returns what is kept of what *values* name."""
    key = values.get(name)
    return kept.get(key, {}) if isinstance(key, (str, int)) else {}
