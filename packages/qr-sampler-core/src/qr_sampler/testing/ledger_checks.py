# SPDX-License-Identifier: Apache-2.0
"""What the ledger of every host has to fulfil, whatever the host did to its sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import JoinedLines, read_ledger

__all__ = ["EmittedText", "check_ledger", "records_in", "tokens_by_sequence"]

RECORD_KINDS: Final = frozenset(
    {"genesis", "bypass", "discard", "emission", "forced", "gap", "token", "undecided"}
)
"""Kinds of lines that are records in memory, too; others say what these refer to, or when a
sequence or the file ends."""

_TOKEN_KINDS: Final = frozenset({"token", "forced", "undecided"})

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmittedText:
    """What a host has really emitted for one sequence."""

    request_key: str
    """The client's name for the request."""
    tokens: tuple[int, ...]
    """The tokens, from *first* on."""
    first: int = 0
    """Index of the first of them: of a fork, the number of tokens that it began with."""
    sequence: str = ""
    """Name of the sequence, where several share a request."""
    trial: str | None = None
    """The client's trial label."""
    condition: str | None = None
    """The client's condition label."""
    settled: bool = True
    """Whether the sequence has ended by itself, so that the ledger can be certain of its end."""


def records_in(*places: Path) -> list[dict[str, Any]]:
    """Returns the records of ledgers, as :func:`~qr_sampler.records.reader.read_ledger` joins them.

    Args:
        *places: Ledger files, and directories with any number of them; those are read in the order
            of their names.
    """
    files = [
        file for place in places for file in (ledgers_in(place) if place.is_dir() else [place])
    ]
    lines = (line for file in files for line in read_ledger(file))
    return [line for line in lines if line["kind"] in RECORD_KINDS]


def check_ledger(lines: Iterable[Line], texts: Iterable[EmittedText], *, bytes_drawn: int) -> None:
    """Compares a ledger with what was emitted and drawn.

    Every emitted token has one record, and no other token has one that says that it was emitted;
    ids, labels and times are right; every byte is in a record or in a discard, and the blocks of a
    numbered draw lie in it one after the other; a sequence ends once, after its last token.

    Args:
        lines: The lines of the ledger, of either version, as JSON has them, as
            :func:`~qr_sampler.records.reader.read_ledger` yields them, or as ``Record.as_dict``
            returns them.
        texts: What the host has emitted, those sequences that emitted nothing included or not.
        bytes_drawn: How many bytes its sources have delivered.

    Raises:
        AssertionError: Naming the sequence and what is wrong with it.
    """
    reader = JoinedLines()
    kept = [reader.joined(dict(line)) for line in lines]
    by_sequence = tokens_by_sequence(kept)
    for text in texts:
        named = by_sequence.pop(text.sequence, None) if text.sequence else None
        if not text.sequence:
            keys = [name for name, own in by_sequence.items() if _has_key(own, text.request_key)]
            assert len(keys) <= 1, f"{text.request_key} has {len(keys)} sequences: {keys}"
            named = by_sequence.pop(keys[0]) if keys else None
        _check_text(text, named or [])
    assert not by_sequence, f"nobody has emitted the tokens of {sorted(by_sequence)}"
    for line in kept:
        _check_times(line)
    _check_draws(kept)
    _check_ends(kept)
    recorded = sum(line.get("block_bytes", 0) for line in kept)
    assert recorded == bytes_drawn, f"{bytes_drawn} bytes were drawn and {recorded} are recorded"


def tokens_by_sequence(lines: Iterable[Line]) -> dict[str, list[dict[str, Any]]]:
    """Returns the records of tokens that were or may have been emitted, in the order of the file.

    What a later line says of a token is filled in.

    Args:
        lines: Lines as :func:`~qr_sampler.records.reader.read_ledger` yields them.

    Raises:
        AssertionError: When a later line says something of a token that has no record.
    """
    tokens: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["kind"] in _TOKEN_KINDS:
            tokens.setdefault(line["sequence"], []).append(dict(line))
        elif line["kind"] == "emission":
            earlier = [
                token
                for token in tokens.get(line["sequence"], [])
                if token["position"] == line["position"] and token["emitted"] is None
            ]
            assert len(earlier) == 1, f"{line} belongs to {len(earlier)} records"
            assert earlier[0]["token_id"] == line["token_id"], f"{line} is of another token"
            earlier[0]["emitted"] = line["emitted"]
    emitted = {
        name: [token for token in own if token["emitted"] is not False]
        for name, own in tokens.items()
    }
    return {name: own for name, own in emitted.items() if own}


def _has_key(tokens: list[dict[str, Any]], request_key: str) -> bool:
    return any(token["request_key"] == request_key for token in tokens)


def _check_text(text: EmittedText, tokens: list[dict[str, Any]]) -> None:
    name = text.sequence or text.request_key
    certain = len(text.tokens)
    positions = [token["position"] for token in tokens]
    expected = list(range(text.first, text.first + len(positions)))
    assert positions == expected, f"{name}: positions {positions}, expected {expected}"
    assert len(tokens) >= certain, f"{name}: {certain} tokens and {len(tokens)} records"
    ids = [token["token_id"] for token in tokens[:certain]]
    assert ids == list(text.tokens), f"{name}: tokens {text.tokens}, recorded {ids}"
    for token in tokens[certain:]:
        assert token["emitted"] is None, f"{name}: {token['position']} was not emitted"
        assert not text.settled, f"{name}: {token['position']} is not known not to be emitted"
    for token in tokens:
        if text.settled:
            assert token["emitted"] is True, f"{name}: {token['position']} is not settled"
        labels = (token["request_key"], token["trial"], token["condition"])
        assert labels == (text.request_key, text.trial, text.condition), f"{name}: {labels}"


def _check_draws(lines: list[dict[str, Any]]) -> None:
    """The blocks of a draw are all of its bytes, each once."""
    blocks: dict[int, list[tuple[int, int]]] = {}
    for line in lines:
        if line["kind"] in ("token", "discard"):
            for part in line.get("uniforms") or [{**line, "bytes": line["block_bytes"]}]:
                if part.get("draw") is not None:
                    blocks.setdefault(part["draw"], []).append((part["offset"], part["bytes"]))
    for draw in [line for line in lines if line["kind"] == "draw"]:
        end = 0
        for offset, size in sorted(blocks.pop(draw["draw"], [])):
            assert offset == end, f"draw {draw['draw']}: a block at {offset} instead of {end}"
            end += size
        assert end == draw["bytes"], f"draw {draw['draw']}: {end} of {draw['bytes']} bytes"
    assert not blocks, f"no line tells of the draws {sorted(blocks)}"


def _check_ends(lines: list[dict[str, Any]]) -> None:
    """A sequence ends once, after all of its tokens, and its end counts those emitted.

    Before a ledger is closed every sequence has ended.
    """
    emitted = Counter(line["sequence"] for line in lines if line.get("emitted") is True)
    ended: set[str] = set()
    named: set[str] = set()
    for line in lines:
        name = line.get("sequence")
        if line["kind"] in _TOKEN_KINDS:
            assert name not in ended, f"{name}: a token after its end"
        elif line["kind"] == "sequence":
            named.add(line["sequence"])
        elif line["kind"] == "close" and line["continued_in"] is None:
            assert named == ended, f"no end of {sorted(named ^ ended)}"
        elif line["kind"] == "end":
            assert name not in ended, f"{name}: two ends"
            ended.add(line["sequence"])
            told = (line["tokens"], emitted[line["sequence"]])
            assert told[0] == told[1], f"{name}: an end of {told[0]} tokens, and {told[1]} records"


def _check_times(line: Line) -> None:
    """A draw is requested when the logits are complete, and answered after that."""
    if line["kind"] == "token" and line["jit"]:
        times = (line["t_logits_ns"], line["t_request_ns"], line["t_received_ns"])
        assert times == tuple(sorted(times)), f"{line['sequence']}: times {times}"
