# SPDX-License-Identifier: Apache-2.0
"""Which bytes have decided which token of a recorded run."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from qr_sampler.errors import ConfigError
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import lines_in
from qr_sampler.records.sidecars.pieces import BlocksFile, NoBlocksError

__all__ = ["MOST_TOKENS", "NUMBER_BYTES", "NotRecordedError", "Recording"]

MOST_TOKENS: Final = 5_000_000
"""Number of tokens of a recording that are remembered, some 150 bytes each."""

NUMBER_BYTES: Final = 8
"""Length of a uniform number, where the bytes behind it are not there."""

_LARGEST_COUNT: Final = 2**53

_TWICE: Final = -1
"""Stands for a row of a token that several sequences have under one key."""


class NotRecordedError(LookupError):
    """There is nothing to be handed out for a row; says why."""


class _Row(NamedTuple):
    """What is recorded of one token."""

    sequence: str
    file: int
    """Which of the files of blocks its bytes are in; -1 where only u is there."""
    start: int
    size: int
    total: int
    """Sum of the bytes; -1 if it was not recorded."""
    u: float
    emitted: bool
    """Whether it is a token: bytes that decided none serve where no token is recorded."""


class Recording:
    """The tokens of recorded ledgers by request key and position.

    With the bytes of their draws beside them (``QR_LEDGER_BLOCKS``) it holds the block of every
    token, otherwise u. Where several lines tell of one position of a sequence, the latest token
    counts. Tokens that several numbers have decided are left out.

    Args:
        path: A ledger, or a folder whose ledgers are one recording.

    Raises:
        ConfigError: When that is no ledger, too large, or has blocks for a part of its files only.
    """

    def __init__(self, path: Path) -> None:
        self.run_ids: list[str] = []
        """The runs that were recorded."""
        self._blocks: list[Path] = []
        self._positions: dict[str, dict[int, int]] = {}
        """By request key and position, the index of a row."""
        self._sequences: list[str] = []
        self._files, self._starts = array("l"), array("q")
        self._sizes, self._totals = array("q"), array("q")
        self._u = array("d")
        self._emitted = array("b")
        ledgers = _ledgers(path)
        stored = [BlocksFile.beside(ledger).is_file() for ledger in ledgers]
        self.has_blocks = any(stored)
        """Whether it holds blocks, not only u."""
        for ledger, has_blocks in zip(ledgers, stored, strict=True):
            self._read(ledger, has_blocks)
        if not self._positions:
            raise ConfigError(
                f"{path} has no token that could be replayed; name a ledger with some"
            )

    def __len__(self) -> int:
        """Returns the number of tokens and of discarded rows that it holds."""
        return sum(map(len, self._positions.values()))

    def blocks(self, rows: Iterable[tuple[str, int, int]]) -> bytes:
        """Returns the blocks of rows, one after the other.

        Args:
            rows: Request key, position and size of the block of each.

        Raises:
            NotRecordedError: When one of them was not recorded so.
            OSError: When the bytes cannot be read.
        """
        wanted = [self._found(*row) for row in rows]
        if not self.has_blocks:
            return b"".join(_number_of(self._u[index]) for index in wanted)
        return b"".join(self._stored(wanted))

    def _found(self, request_key: str, position: int, size: int) -> int:
        index = self._positions.get(request_key, {}).get(position)
        row = f"request {request_key!r}, position {position}"
        if index is None:
            raise NotRecordedError(f"{row}: it was not recorded")
        if index == _TWICE:
            raise NotRecordedError(
                f"{row}: several sequences were recorded under this key; give each its own"
            )
        if self._files[index] < 0 and self.has_blocks:
            raise NotRecordedError(f"{row}: its bytes were not kept")
        recorded = self._sizes[index] if self.has_blocks else NUMBER_BYTES
        if recorded != size:
            raise NotRecordedError(f"{row}: {recorded} bytes were recorded, and {size} are wanted")
        return index

    def _stored(self, wanted: list[int]) -> Iterator[bytes]:
        opened: dict[int, BlocksFile] = {}
        try:
            for index in wanted:
                number = self._files[index]
                if number not in opened:
                    opened[number] = BlocksFile(self._blocks[number])
                data = opened[number].read(self._starts[index], self._sizes[index])
                if data is None or not self._fits(data, index):
                    raise NotRecordedError(
                        f"{opened[number].path.name} has changed since it was read"
                    )
                yield data
        finally:
            for file in opened.values():
                file.close()

    def _fits(self, data: bytes, index: int) -> bool:
        """Returns whether the sum of a block is the recorded one, if there is one."""
        total = self._totals[index]
        return total < 0 or int(np.frombuffer(data, np.uint8).sum(dtype=np.int64)) == total

    def _read(self, ledger: Path, has_blocks: bool) -> None:
        keys: dict[str, str] = {}
        pieces = self._pieces(ledger) if has_blocks else {}
        number = len(self._blocks) - 1 if has_blocks else -1
        with ledger.open("rb") as file:
            for line in lines_in(file):
                values = line.values or {}
                kind = values.get("kind")
                if kind == "genesis":
                    self.run_ids.append(str(values.get("run_id")))
                elif kind == "sequence":
                    keys[str(values.get("sequence"))] = str(values.get("request_key"))
                elif kind in ("token", "discard"):
                    row = _row_of(values, pieces, number)
                    key = keys.get(str(values.get("sequence")))
                    if row is not None and key is not None:
                        self._keep(key, values["position"], row)

    def _pieces(self, ledger: Path) -> dict[int, tuple[int, int]]:
        """Returns where the bytes of every draw begin, and how many there are."""
        self._blocks.append(ledger)
        try:
            file = BlocksFile(ledger)
        except NoBlocksError as error:
            raise ConfigError(f"{error}; remove it to replay u") from error
        pieces: dict[int, tuple[int, int]] = {}
        try:
            while (piece := file.next()) is not None:
                if piece.whole:
                    pieces[piece.number] = (piece.start, piece.size)
                if len(pieces) > MOST_TOKENS:
                    raise _too_large(file.path)
        finally:
            file.close()
        return pieces

    def _keep(self, key: str, position: int, row: _Row) -> None:
        positions = self._positions.setdefault(key, {})
        index = positions.get(position)
        if index == _TWICE:
            return
        if index is not None and self._emitted[index]:
            if not row.emitted:
                return
            if self._sequences[index] != row.sequence:
                positions[position] = _TWICE
                return
        positions[position] = len(self._u)
        if len(self._u) >= MOST_TOKENS:
            raise _too_large(self._blocks[-1] if self._blocks else "the ledger")
        self._sequences.append(row.sequence)
        self._files.append(row.file)
        self._starts.append(row.start)
        self._sizes.append(row.size)
        self._totals.append(row.total)
        self._u.append(row.u)
        self._emitted.append(row.emitted)


def _row_of(
    values: Mapping[str, Any], pieces: Mapping[int, tuple[int, int]], file: int
) -> _Row | None:
    """Returns what a line says of a token or of bytes that decided none; ``None`` if not enough."""
    u, position = values.get("u"), values.get("position")
    offset, size = values.get("offset"), values.get("block_bytes")
    whole = all(_is_count(each) for each in (position, offset, size))
    if not whole or type(u) is not float or not 0.0 < u < 1.0 or values.get("uniforms"):
        return None
    emitted = values["kind"] == "token"
    total = values.get("block_sum") if emitted else None
    draw = values.get("draw")
    start, length = pieces.get(draw, (0, -1)) if type(draw) is int else (0, -1)
    there = offset + size <= length  # type: ignore[operator]
    return _Row(
        sequence=str(values.get("sequence")),
        file=file if there else -1,
        start=start + offset if there else 0,  # type: ignore[operator]
        size=size,  # type: ignore[arg-type]
        total=total if _is_count(total) else -1,  # type: ignore[arg-type]
        u=u,
        emitted=emitted,
    )


def _is_count(value: object) -> bool:
    """Whether a value is a count that every reader of JSON knows exactly."""
    return type(value) is int and 0 <= value <= _LARGEST_COUNT


def _number_of(u: float) -> bytes:
    """Returns floor(u * 2**64) in eight bytes, most significant first, as ``server`` takes it.

    A number from 2**-11 on comes back exactly, a smaller one within 2**-65.
    """
    return int(u * 2.0**64).to_bytes(NUMBER_BYTES, "big")


def _ledgers(path: Path) -> list[Path]:
    if path.is_dir():
        ledgers = ledgers_in(path)
        if not ledgers:
            raise ConfigError(f"{path} has no ledgers; name a ledger, or a folder that has some")
        return ledgers
    if not path.is_file():
        raise ConfigError(f"{path} is no ledger: there is no such file; check QR_REPLAY_LEDGER")
    return [path]


def _too_large(what: object) -> ConfigError:
    return ConfigError(f"{what} has more than {MOST_TOKENS:,} tokens; replay a part of it")
