# SPDX-License-Identifier: Apache-2.0
"""Rung 5: what the server that answered has written down itself."""

from __future__ import annotations

import glob
import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.reading.lines import LONGEST_LINE, NotALedgerError, RawLine, raw_lines
from qr_sampler_cli.audit.rungs.chain import NO_LINE
from qr_sampler_cli.audit.schema.token_lines import Draw

__all__ = ["ServerLog", "ServerLogWitness"]

_KEY_BYTES: Final = 16


class _Line(msgspec.Struct):
    """What any line of the file may say."""

    kind: str
    n: int
    prev: str
    continues: dict[str, Any] | None = None
    torn_bytes: int = 0
    missing: dict[str, int] = {}
    sequence_id: int = 0
    commitment: str = ""
    data_sha256: str = ""
    device_id: str = ""
    generation_timestamp_ns: int = 0


_decode: Final = msgspec.json.Decoder(_Line).decode


class ServerLog:
    """The answers in the witness log of a server.

    A server that is started again goes on in another file, ``X_0002.jsonl`` beside ``X.jsonl``. In
    memory are 24 bytes for each answer.

    Args:
        path: The first file; those beside it that continue it are read, too.

    Raises:
        ConfigError: When it is no such file, or its chain is broken: then it is no witness.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        """Number of answers that the server could not write down."""
        self.devices: set[str] = set()
        """Identities that it has answered under."""
        self.begins_later = False
        """Whether it continues a file that was not named."""
        self.earliest_ns = 0
        """Time of the first answer."""
        self.latest_ns = 0
        """Latest time of an answer."""
        self._keys = bytearray()
        self._numbers = array("q")
        self._read(path)
        keys = np.frombuffer(bytes(self._keys), dtype=f"S{_KEY_BYTES}")
        # NumPy cuts zeros off their ends.
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, draw: Draw) -> int | None:
        """Returns the place of the answer that *draw* records, ``None`` if there is none."""
        time_ns = draw.device_timestamp_ns or 0
        key = _key(draw.data_sha256, draw.commitment, draw.device_id, time_ns).rstrip(b"\0")
        place = int(np.searchsorted(self._sorted, np.bytes_(key)))
        while place < len(self._sorted) and self._sorted[place] == key:
            found = int(self._order[place])
            if draw.sequence_id in (None, self._numbers[found]):
                return found
            place += 1
        return None

    def _read(self, path: Path) -> None:
        heads: dict[str, str] = {}
        for each in (path, *_following(path)):
            heads[each.name] = self._read_file(each, heads)

    def _read_file(self, path: Path, heads: Mapping[str, str]) -> str:
        """Reads a file and returns its head; *heads* are those of the files before it."""
        head, number = "", -1
        for line, raw in _lines(path):
            before = head or self._begin(path, line, heads)
            if (line.n, line.prev) != (number + 1, before):
                raise ConfigError(
                    f"--witness={path}: line n {line.n} does not follow the line before it"
                )
            head, number = raw.head, line.n
            self._take(line)
        return head

    def _begin(self, path: Path, line: _Line, heads: Mapping[str, str]) -> str:
        """Returns what the first line of a file has to name."""
        continues = line.continues or {}
        head = str(continues.get("head") or "")
        if heads and (not head or heads.get(str(continues.get("file"))) != head):
            raise ConfigError(f"--witness={path}: it continues none of the files before it")
        self.begins_later |= bool(head) and not heads
        return head or NO_LINE

    def _take(self, line: _Line) -> None:
        if line.kind == "gap":
            self.lost += line.missing.get("answer", 0)
        elif line.kind == "answer":
            self._keys += _key(
                line.data_sha256, line.commitment, line.device_id, line.generation_timestamp_ns
            )
            self._numbers.append(line.sequence_id)
            self.devices.add(line.device_id)
            if len(self._numbers) == 1:
                self.earliest_ns = line.generation_timestamp_ns
            self.latest_ns = max(self.latest_ns, line.generation_timestamp_ns)


class ServerLogWitness:
    """Looks for the draws of a run in the log of the server.

    Args:
        rung: Takes the findings.
        log: The log.
    """

    def __init__(self, rung: Rung, log: ServerLog) -> None:
        self._rung = rung
        self._log = log
        self._missed = 0
        self._first_missed = 0
        self._seen: Counter[str] = Counter()
        self._places = array("q")
        self._asked = array("q")
        self._answered = array("q")
        self._lines = array("q")

    def draw(self, line: Draw, place: int) -> None:
        """Looks for a draw."""
        log, rung = self._log, self._rung
        if line.device_id not in log.devices:
            rung.cannot_say("whether others answered draws of devices that are not in the log")
        elif line.requests != 1:
            rung.cannot_say("whether draws that were split into requests are in the log", place)
        elif (found := log.find(line)) is not None:
            self._places.append(found)
            self._asked.append(line.t_request_ns)
            self._answered.append(line.t_received_ns)
            self._lines.append(place)
        elif (line.device_timestamp_ns or 0) > log.latest_ns:
            rung.cannot_say("whether draws after the end of the log were answered", place)
        elif log.begins_later and (line.device_timestamp_ns or 0) < log.earliest_ns:
            rung.cannot_say("whether draws before the beginning of the log were answered", place)
        elif self._missed < log.lost:
            self._missed += 1
            rung.cannot_say("what was in answers that the log has lost", place)
        else:
            rung.fail(
                place, f"draw {line.draw}: the log of the server holds no such answer: {log.path}"
            )

    def finish(self) -> None:
        """Judges the order of what was found."""
        places = np.array(self._places)
        order = np.argsort(places, kind="stable")
        self._judge_copies(places[order], order)
        asked = np.array(self._asked)[order]
        answered = np.array(self._answered)[order]
        if len(asked) < 2:
            return
        # A draw that was answered before another one was asked for comes first in the log.
        latest_asked = np.maximum.accumulate(asked[:-1])
        for index in np.flatnonzero(answered[1:] < latest_asked):
            self._rung.fail(
                self._lines[int(order[index + 1])],
                "the log of the server has this answer after one that was asked for later",
            )

    def _judge_copies(self, places: NDArray[np.int64], order: NDArray[np.intp]) -> None:
        for index in np.flatnonzero(np.diff(places) == 0):
            self._rung.fail(
                self._lines[int(order[index + 1])],
                "another draw has the same answer in the log of the server",
            )


def _following(path: Path) -> list[Path]:
    """Returns the files that continue one, as a server names them, in order."""
    stem, _, number = path.stem.rpartition("_")
    first, name = (int(number), stem) if stem and number.isdigit() else (1, path.stem)
    found = {
        int(each.stem.rpartition("_")[2]): each
        for each in path.parent.glob(f"{glob.escape(name)}_[0-9]*{path.suffix}")
        if each.stem.rpartition("_")[2].isdigit()
    }
    return [found[each] for each in sorted(found) if each > first]


def _key(data_sha256: str, commitment: str, device_id: str, time_ns: int) -> bytes:
    told = "\n".join((data_sha256, commitment, str(time_ns), device_id)).encode()
    return hashlib.sha256(told).digest()[:_KEY_BYTES]


def _lines(path: Path) -> Iterator[tuple[_Line, RawLine]]:
    """Yields the whole lines of the log, without those that a gap calls torn."""
    waiting: tuple[_Line | None, RawLine] | None = None
    try:
        for raw in raw_lines(path):
            if not raw.whole:
                break
            line = _line_of(raw)
            if waiting is not None and not _is_torn(waiting[1], line):
                yield _checked(path, *waiting)
            waiting = line, raw
    except NotALedgerError as error:
        raise ConfigError(f"--witness={path}: {error}") from error
    if waiting is not None:
        yield _checked(path, *waiting)


def _line_of(raw: RawLine) -> _Line | None:
    if raw.size > LONGEST_LINE:
        return None
    try:
        return _decode(raw.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_torn(raw: RawLine, following: _Line | None) -> bool:
    return following is not None and following.kind == "gap" and following.torn_bytes == raw.size


def _checked(path: Path, line: _Line | None, raw: RawLine) -> tuple[_Line, RawLine]:
    if line is None:
        raise ConfigError(
            f"--witness={path}: name the file that a server wrote with --witness-log; it has a "
            "line that is none of such a file"
        )
    return line, raw
