# SPDX-License-Identifier: Apache-2.0
"""Which files belong together, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from qr_sampler.records.files import ledgers_in
from qr_sampler_cli.audit.reading.decoding import decode_object
from qr_sampler_cli.audit.reading.lines import NotALedgerError, raw_lines

__all__ = ["LedgerFile", "ledgers_of", "look_at"]

_FIRST_BYTES: Final = 2**20
_LOOKED_AT: Final = 16
"""Lines of a file among which one has to be a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFile:
    """A file that holds records."""

    path: Path
    """Where it is."""
    version: int
    """Layout of its lines: 1, or 2 and later."""
    run_id: str
    """The run that its first line names; empty if there is none."""
    pid: int
    """The process that it names; 0 if there is none."""
    began: tuple[int, int]
    """When it was begun, on the monotonic clock and on the wall."""
    continues: str | None
    """Name of the file that it continues, if it does."""
    has_clock: bool
    """Whether it says itself when it was begun; if not, that is the beginning of the run."""


def ledgers_of(paths: Iterable[Path]) -> list[list[LedgerFile]]:
    """Returns the files of every run, in the order in which they were written.

    Args:
        paths: Files, or directories whose ``*.jsonl`` are taken.

    Raises:
        NotALedgerError: When a path leads to anything else, or holds no ledger.
    """
    runs: dict[tuple[str, int], list[LedgerFile]] = {}
    for path in _files(paths):
        file = look_at(path)
        # A process that was forked off goes on under the name of the run.
        runs.setdefault((file.run_id or f"file {path}", file.pid), []).append(file)
    return [_in_order(files) for files in runs.values()]


def _in_order(files: list[LedgerFile]) -> list[LedgerFile]:
    """Returns the files of a run in the order in which they were written."""
    # Of the beginning of a file, a disk may have taken the first line only.
    dated = [file for file in files if file.has_clock or file.continues is None]
    ordered = sorted(
        dated, key=lambda file: (*file.began, file.continues is not None, file.path.name)
    )
    for file in sorted(set(files) - set(dated), key=lambda file: file.path.name):
        names = [each.path.name for each in ordered]
        known = file.continues in names
        ordered.insert(names.index(str(file.continues)) + 1 if known else len(names), file)
    return ordered


def _files(paths: Iterable[Path]) -> Sequence[Path]:
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = ledgers_in(path)
            if not inside:
                raise NotALedgerError(f"{path} has no *.jsonl; name ledgers, or their directory")
            # A disk that was full when a process ended may have taken no line of the last file.
            files.update(dict.fromkeys([*filter(_has_a_line, inside)] or inside))
        else:
            files[path] = None
    return list(files)


def _has_a_line(path: Path) -> bool:
    """Whether a file may have a whole line; one that cannot be read may."""
    if not path.is_file():
        return True
    try:
        with path.open("rb") as file:
            first = file.read(_FIRST_BYTES)
    except OSError:
        return True
    return b"\n" in first or len(first) == _FIRST_BYTES


def look_at(path: Path) -> LedgerFile:
    """Returns what the first lines of a file say.

    Raises:
        NotALedgerError: When none of them is a record.
    """
    records: dict[str, dict[str, Any]] = {}
    for raw in islice(raw_lines(path), _LOOKED_AT):
        values, _ = decode_object(raw)
        if values is not None and isinstance(values.get("kind"), str):
            records.setdefault(values["kind"], values)
    if not records:
        raise NotALedgerError(f"{path} is not a ledger: none of its first lines is a record")
    first = next(iter(records.values()))
    # All files of a run have the genesis of its beginning; the clocks are those of the file.
    clocks = records.get("clock", first)
    continues = first.get("continues")
    return LedgerFile(
        path=path,
        version=2 if "prev" in first or "n" in first else 1,
        run_id=_text(first.get("run_id")),
        pid=_number(first.get("pid")),
        began=(_number(clocks.get("monotonic_ns")), _number(clocks.get("wall_time_ns"))),
        continues=_text(continues.get("file")) if isinstance(continues, dict) else None,
        has_clock="clock" in records,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if type(value) is int else 0
