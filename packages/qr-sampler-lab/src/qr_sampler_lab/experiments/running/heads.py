# SPDX-License-Identifier: Apache-2.0
"""How far ledgers have got."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qr_sampler.records.chain import ZERO_HEAD
from qr_sampler.records.files import ledgers_in
from qr_sampler_cli.audit.reading.decoding import decode_object
from qr_sampler_cli.audit.reading.lines import RawLine, raw_lines

__all__ = ["head_in", "ledger_heads", "original_head"]


def ledger_heads(directory: Path) -> dict[str, Mapping[str, object]]:
    """Returns the number of whole lines and the head of every ledger in a directory, by its name.

    Raises:
        NotALedgerError: When one cannot be read.
    """
    return {path.name: head_in(path) for path in ledgers_in(directory)}


def head_in(path: Path, lines: int | None = None) -> dict[str, object]:
    """Returns how many whole lines a file has, and the digest of the last of them.

    Args:
        path: The file.
        lines: Number of lines after which to stop.

    Raises:
        NotALedgerError: When it cannot be read.
    """
    count, head = 0, ZERO_HEAD
    for raw in raw_lines(path):
        if not raw.whole or count == lines:
            break
        count, head = count + 1, original_head(raw)
    return {"lines": count, "head": head}


def original_head(raw: RawLine) -> str:
    """Returns the digest of a line, or that of its original if its text is left out."""
    if raw.data.startswith(b'{"kind":"redacted"'):
        values, _ = decode_object(raw)
        if values is not None and isinstance(values.get("sha256"), str):
            return str(values["sha256"])
    return raw.head
