# SPDX-License-Identifier: Apache-2.0
"""Whether the files of a ledger are chained, checked with nothing but the standard library."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

__all__ = ["chained_lines", "check_files", "kept_blocks"]

_ZEROS: Final = "0" * 64


def chained_lines(path: Path, *, torn_end: bool = False) -> list[dict[str, Any]]:
    """Returns the whole lines of the file at *path*, whose chain is checked.

    Args:
        path: A file of a ledger of version 2.
        torn_end: Whether its last line may be unfinished.

    Raises:
        AssertionError: When a line does not follow from the one before it.
    """
    *raw_lines, rest = path.read_bytes().split(b"\n")
    assert torn_end or not rest, f"the last line of {path} is unfinished: {rest!r}"
    lines: list[dict[str, Any]] = []
    head: str | None = None
    torn: bytes | None = None
    for raw in raw_lines:
        try:
            line = json.loads(raw)
        except ValueError:
            assert torn is None, f"{path} has two unfinished lines in a row: {torn!r}, {raw!r}"
            torn = raw
            continue
        where = f"line {len(lines)} of {path}"
        assert list(line)[:3] == ["kind", "n", "prev"], f"{where} begins with something else"
        assert line["n"] == len(lines), f"{where} has the number {line['n']}"
        assert head in (None, line["prev"]), f"{where} does not follow from the one before it"
        if torn is not None:
            assert line["kind"] == "gap", f"an unfinished line precedes {where}, which is no gap"
            assert line["torn_bytes"] == len(torn), f"{where} tells of another unfinished line"
        torn, head = None, hashlib.sha256(raw).hexdigest()
        _check_close(lines, line, where)
        lines.append(line)
    return lines


def check_files(paths: Iterable[Path], *, torn_end: bool = False) -> list[dict[str, Any]]:
    """Returns the lines of the files of one run, in order, whose chain is checked across them.

    Args:
        paths: The files in the order in which they were begun.
        torn_end: Whether the last line of the last one may be unfinished.

    Raises:
        AssertionError: When a line or a file does not follow from the one before it.
    """
    files = list(paths)
    found: list[dict[str, Any]] = []
    expected = ""
    for path in files:
        lines = chained_lines(path, torn_end=torn_end and path == files[-1])
        if lines:
            expected = expected or lines[0].get("seal") or _ZEROS
            assert lines[0]["prev"] == expected, f"{path} does not follow from the file before it"
            expected = hashlib.sha256(path.read_bytes().split(b"\n")[-2]).hexdigest()
        found += lines
    return found


def _check_close(lines: list[dict[str, Any]], line: dict[str, Any], where: str) -> None:
    assert not lines or lines[-1]["kind"] != "close", f"{where} follows the end"
    if line["kind"] == "close":
        totals = dict(Counter(before["kind"] for before in lines))
        assert line["totals"] == totals, f"{where} counts {line['totals']} instead of {totals}"
        assert line["head"] == line["prev"], f"{where} has another head"


def kept_blocks(ledger: Path) -> dict[int, bytes]:
    """Returns the bytes of every draw by its number, as the page of the ledger describes them.

    Args:
        ledger: The ledger beside which they are kept (``QR_LEDGER_BLOCKS``).
    """
    data, found = ledger.with_suffix(".blocks").read_bytes(), {}
    at = len(b"QRBLOCKS1\n")
    while at < len(data):
        number, length = (int.from_bytes(data[at + i : at + i + 8], "big") for i in (0, 8))
        found[number] = data[at + 16 : at + 16 + length]
        at += 16 + length
    return found
