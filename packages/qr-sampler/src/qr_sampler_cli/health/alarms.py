# SPDX-License-Identifier: Apache-2.0
"""What a ledger says of the health of its sources: alarms with their draws, and start-up tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from qr_sampler.errors import QRSamplerError
from qr_sampler.records.reader import JoinedLines, lines_in

__all__ = ["MOST_ALARMS", "UNKNOWN", "HealthHistory", "LedgerAlarm", "SourceHistory", "history_of"]

FAILED: Final = "health: "
"""How the reason begins for which bytes were refused."""

STARTUP: Final = "startup_test"
"""The reason of bytes that were drawn to test a source."""

UNKNOWN: Final = "unknown"
"""Stands for any word that this version does not know."""

MOST_ALARMS: Final = 10_000
"""Alarms that are kept; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerAlarm:
    """An alarm and the draw that it is about."""

    source: str
    """The source."""
    state: Literal["suspect", "failed"]
    """Whether its bytes decided tokens all the same, or were refused."""
    reason: str
    """Test, value and cut-off; a suspect draw has none in the ledger."""
    draw: int | None
    """Number of the draw in its run; ``None`` for bytes that were refused before they had one."""
    bytes: int
    """How many bytes."""
    wall_time_ns: int | None
    """When, in nanoseconds since the epoch."""
    file: str
    """Name of the ledger file."""
    line: int
    """Number of the line in it, from 1."""


@dataclass(slots=True)
class SourceHistory:
    """What a ledger says of one source."""

    draws: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("ok", "suspect", "untested", UNKNOWN), 0)
    )
    """Draws by what the tests said of them, ``unknown`` if in no word of this version."""
    failures: int = 0
    """Alarms by which bytes were refused."""
    startup_draws: int = 0
    """Draws that tested the source."""
    startup_bytes: int = 0
    """Their bytes."""
    suspect_tokens: int = 0
    """Emitted tokens that suspect bytes decided."""
    replaced: int = 0
    """Draws that another source served because this one had failed."""


class HealthHistory:
    """Collects what the lines of ledgers say of health."""

    def __init__(self) -> None:
        self.sources: dict[str, SourceHistory] = {}
        """By name of the source."""
        self.alarms: list[LedgerAlarm] = []
        """The first alarms, in the order of the lines."""
        self.count = 0
        """Number of all alarms."""
        self.unreadable = 0
        """Lines that are no records."""
        self._handlers: dict[str, Callable[[dict[str, Any], str, int], None]] = {
            "draw": self._draw,
            "discard": self._discard,
            "token": self._token,
        }

    def read(self, path: Path) -> None:
        """Reads a file of a ledger.

        Raises:
            QRSamplerError: When it cannot be read.
        """
        joined = JoinedLines()
        try:
            with path.open("rb") as file:
                for line in lines_in(file):
                    if line.values is None:
                        self.unreadable += 1
                        continue
                    values = joined.joined(line.values)
                    if handler := self._handlers.get(values["kind"]):
                        handler(values, path.name, line.number)
        except OSError as error:
            raise QRSamplerError(f"{path} cannot be read: {error}") from error

    def _of(self, values: dict[str, Any]) -> SourceHistory:
        return self.sources.setdefault(_text(values.get("source")), SourceHistory())

    def _draw(self, values: dict[str, Any], file: str, line: int) -> None:
        history = self._of(values)
        health = _text(values.get("health", "untested"))
        history.draws[health if health in history.draws else UNKNOWN] += 1
        if health == "suspect":
            self._alarm(values, "suspect", "", values.get("bytes"), file, line)
        # It begins with the name of the source that was to deliver.
        away, _, reason = _text(values.get("fallback_reason")).partition(": ")
        if values.get("fallback") is True and reason.startswith(FAILED):
            self.sources.setdefault(away, SourceHistory()).replaced += 1

    def _discard(self, values: dict[str, Any], file: str, line: int) -> None:
        reason = _text(values.get("reason"))
        if reason == STARTUP:
            history = self._of(values)
            history.startup_draws += 1
            history.startup_bytes += _count(values.get("block_bytes"))
        elif reason.startswith(FAILED):
            self._of(values).failures += 1
            words = reason.removeprefix(FAILED)
            self._alarm(values, "failed", words, values.get("block_bytes"), file, line)

    def _token(self, values: dict[str, Any], file: str, line: int) -> None:
        if values.get("health") == "suspect" and values.get("emitted") is not False:
            self._of(values).suspect_tokens += 1

    def _alarm(
        self,
        values: dict[str, Any],
        state: Literal["suspect", "failed"],
        reason: str,
        size: Any,
        file: str,
        line: int,
    ) -> None:
        self.count += 1
        if len(self.alarms) < MOST_ALARMS:
            draw, wall_time_ns = values.get("draw"), values.get("wall_time_ns")
            self.alarms.append(
                LedgerAlarm(
                    source=_text(values.get("source")),
                    state=state,
                    reason=reason,
                    draw=draw if type(draw) is int else None,
                    bytes=_count(size),
                    wall_time_ns=wall_time_ns if type(wall_time_ns) is int else None,
                    file=file,
                    line=line,
                )
            )


def history_of(paths: Iterable[Path]) -> HealthHistory:
    """Returns what ledger files say of the health of their sources.

    Args:
        paths: The files of one or more runs, those of each in order.

    Raises:
        QRSamplerError: When one cannot be read.
    """
    history = HealthHistory()
    for path in paths:
        history.read(path)
    return history


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
