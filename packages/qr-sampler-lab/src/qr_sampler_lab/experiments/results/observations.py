# SPDX-License-Identifier: Apache-2.0
"""The tokens of a study, read from its ledgers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qr_sampler.records.reader import JoinedLines, lines_in, read_ledger

__all__ = ["LedgerTail", "Observation", "observation_of", "observations_in"]


class Observation(NamedTuple):
    """What a study needs to know of one token."""

    request_key: str
    """The request that it belongs to; empty for one that has no key."""
    alias: str
    """The alias of its arm, which is the label ``condition``."""
    session: str
    """The number of its session, which is the label ``trial``."""
    position: int
    """Its index in the answer, from 0."""
    source: str
    """The source that decided it."""
    fallback: bool
    """Whether another one was to."""
    just_in_time: bool
    """Whether its bytes were requested after its logits were there."""
    emitted: bool
    """Whether it was; also if that is not known."""
    statistic: float | None
    """The amplifier's statistic; ``None`` for amplifiers without one."""
    u: float | None
    """The uniform number that selected it; ``None`` if it was not selected by one."""
    suspect: bool = False
    """Whether the health tests found its bytes suspect."""


def observations_in(paths: Iterable[Path]) -> Iterator[Observation]:
    """Yields the tokens of ledger files, in the order of their lines.

    Raises:
        OSError: When a file cannot be read.
    """
    for path in paths:
        for values in read_ledger(path):
            if values["kind"] == "token":
                yield observation_of(values)


def observation_of(values: Mapping[str, Any]) -> Observation:
    """Returns what the completed line of a token says."""
    return Observation(
        request_key=_text(values.get("request_key")),
        alias=_text(values.get("condition")),
        session=_text(values.get("trial")),
        position=values["position"] if type(values.get("position")) is int else -1,
        source=_text(values.get("source")),
        fallback=bool(values.get("fallback")),
        just_in_time=values.get("jit") is not False,
        emitted=values.get("emitted") is not False,
        statistic=_number(values.get("statistic")),
        u=_number(values.get("u")),
        suspect=values.get("health") == "suspect",
    )


class LedgerTail:
    """Reads what ledgers have got since they were read last.

    Args:
        directory: Where they are; files that come later are read, too.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: dict[Path, int] = {}
        self._joined: dict[Path, JoinedLines] = {}

    def new(self) -> Iterator[Observation]:
        """Yields the tokens in whole lines that were not there before."""
        from qr_sampler.records.files import ledgers_in

        for path in ledgers_in(self._directory):
            yield from self._new_in(path)

    def _new_in(self, path: Path) -> Iterator[Observation]:
        joined = self._joined.setdefault(path, JoinedLines())
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            for line in lines_in(file):
                self._offsets[path] = file.tell()
                values = None if line.values is None else joined.joined(line.values)
                if values is not None and values["kind"] == "token":
                    yield observation_of(values)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and type(value) is not bool else None
