# SPDX-License-Identifier: Apache-2.0
"""Reading records back: the JSON Lines files that engine processes write."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from qr_sampler.errors import QRSamplerError
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import JoinedLines, lines_in

__all__ = [
    "EMITTED_KINDS",
    "EmittedLine",
    "Ledger",
    "LedgerError",
    "LedgerLine",
    "TokenLine",
    "ledger_files",
    "read_ledger",
]


class LedgerError(QRSamplerError, ValueError):
    """A ledger file cannot be read, or was written by an incompatible version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One line of a ledger."""

    text: str
    """The line as it was written, without its newline."""
    values: Mapping[str, Any]
    """What it says, joined with the lines of its draw and its sequence."""

    @property
    def kind(self) -> str:
        """The kind of record; unknown kinds are kept and not judged."""
        return str(self.values["kind"])

    @property
    def request_key(self) -> str:
        """The request that the record belongs to, empty for records of the whole run."""
        return str(self.values.get("request_key", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLine:
    """The fields of a token record that this package reads; a ledger may contain more."""

    request_key: str
    """Names the request."""
    position: int
    """Index of the token among those generated for its request, from 0."""
    token_id: int
    """The token."""
    u: float
    """The uniform number that selected it, in the open interval (0, 1)."""
    temperature: float
    """Temperature used."""
    entropy_nats: float
    """Shannon entropy of the row at temperature 1."""
    rank: int
    """Rank of the token, 0 for the most probable."""
    probability: float
    """Probability of the token after temperature and truncation."""
    source: str | None
    """Source that supplied the bytes; ``None``, and so what follows, if the line of their draw is
    missing."""
    fallback: bool | None
    """Whether the bytes came from the fallback."""
    t_request_ns: int | None
    """When the entropy request left, on the monotonic clock."""
    t_received_ns: int | None
    """When its answer was complete, on the same clock."""

    @property
    def draw_ms(self) -> float | None:
        """Milliseconds from request to answer, if they are known."""
        if self.t_received_ns is None or self.t_request_ns is None:
            return None
        return (self.t_received_ns - self.t_request_ns) / 1e6

    def is_of(self, source: str) -> bool:
        """Returns whether *source* has supplied the bytes, and not as a fallback."""
        return self.source == source and self.fallback is False


EMITTED_KINDS: Final = ("token", "forced", "undecided")
"""Kinds of records that represent one emitted token each, as far as is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmittedLine:
    """The fields that the record of any emitted token has."""

    request_key: str
    """Names the request."""
    position: int
    """Index of the token among those generated for its request, from 0."""
    token_id: int
    """The token."""
    certain: bool = True
    """Whether it is known to have been emitted: not always where a request was aborted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All lines that engine processes wrote about one run, in the order of their files."""

    lines: tuple[LedgerLine, ...] = ()
    """Every line, of all kinds."""
    unreadable: tuple[str, ...] = ()
    """Lines that are not records, each as ``FILE:NUMBER``: a crash or a full disk tears lines."""

    @property
    def tokens(self) -> tuple[TokenLine, ...]:
        """The token records, without those of tokens that turned out not to be emitted."""
        settled = self.settled()
        return tuple(_checked(TokenLine, line) for line, _ in settled if line.kind == "token")

    def by_request(self) -> dict[str, tuple[TokenLine, ...]]:
        """Returns the token records of each request, in the order in which they were written."""
        groups: dict[str, list[TokenLine]] = defaultdict(list)
        for token in self.tokens:
            groups[token.request_key].append(token)
        return {key: tuple(tokens) for key, tokens in groups.items()}

    def emitted(self) -> dict[str, tuple[EmittedLine, ...]]:
        """Returns the records of all emitted tokens of each request, in the order of the file."""
        groups: dict[str, list[EmittedLine]] = defaultdict(list)
        for line, certain in self.settled():
            groups[line.request_key].append(_checked(EmittedLine, line, certain=certain))
        return {key: tuple(lines) for key, lines in groups.items()}

    def settled(self) -> tuple[tuple[LedgerLine, bool], ...]:
        """Returns the records of emitted tokens, each with whether its emission is certain.

        A record whose ``emitted`` is null is settled by the next ``emission`` line of its token; if
        there is none, its token may or may not have been emitted.
        """
        records: dict[int, tuple[LedgerLine, bool]] = {}
        open_: dict[tuple[str, object, object], int] = {}
        for index, line in enumerate(self.lines):
            token = (line.request_key, line.values.get("sequence"), line.values.get("position"))
            if line.kind in EMITTED_KINDS:
                records[index] = (line, line.values.get("emitted", True) is True)
                open_[token] = index
            elif line.kind == "emission" and token in open_:
                record = records.pop(open_.pop(token))
                if line.values.get("emitted") is True:
                    records[index] = (record[0], True)
        return tuple(records.values())

    def without_entropy(self, request_key: str) -> dict[int, str]:
        """Returns the tokens that were not chosen by entropy: by position, the kind of record."""
        return {
            line.values["position"]: line.kind
            for line in self.lines
            if line.kind in ("forced", "undecided") and line.request_key == request_key
        }

    def why_not(self, source: str) -> Counter[str]:
        """Returns how many emitted tokens were not chosen by *source*, by reason.

        Reasons that differ only in durations are counted as the first of them.

        Args:
            source: Name of the source that should have chosen them.
        """
        first: dict[str, str] = {}
        reasons: Counter[str] = Counter()
        for line in self.lines:
            if line.kind not in EMITTED_KINDS:
                continue
            if line.kind != "token" or not _is_of(line.values, source):
                reason = _reason(line.values)
                reasons[first.setdefault(_TIMES.sub("", reason), reason)] += 1
        return reasons

    def count(self, kind: str) -> int:
        """Returns the number of lines of one kind."""
        return sum(line.kind == kind for line in self.lines)


_TIMES: Final = re.compile(r"\d+(\.\d+)? (s|ms)\b")


def _is_of(values: Mapping[str, Any], source: str) -> bool:
    return values.get("source") == source and values.get("fallback") is False


def _reason(values: Mapping[str, Any]) -> str:
    reason = values.get("fallback_reason") or values.get("reason")
    return str(reason or f"the request chose the source {values.get('source')!r}")


def ledger_files(directory: Path) -> frozenset[Path]:
    """Returns the ledger files of *directory*; none when it does not exist."""
    return frozenset(ledgers_in(directory))


def read_ledger(
    directory: Path, request_keys: Iterable[str], *, ignore: frozenset[Path] = frozenset()
) -> Ledger:
    """Returns the lines of the files that mention one of *request_keys*.

    Every engine process writes its own file, so a file that mentions a request of a run belongs to
    that run as a whole; files that mention none, or have disappeared, are ignored. Lines that are
    not records are left out and listed.

    Args:
        directory: Where the engines wrote.
        request_keys: The requests of the run.
        ignore: Files to leave out, usually those that existed before the run.

    Raises:
        LedgerError: When a file cannot be read.
    """
    keys = frozenset(request_keys)
    lines: list[LedgerLine] = []
    unreadable: list[str] = []
    for path in sorted(ledger_files(directory) - ignore):
        of_file = _read_file(path)
        if keys.intersection(line.request_key for line in of_file.lines):
            lines.extend(of_file.lines)
            unreadable.extend(of_file.unreadable)
    return Ledger(lines=tuple(lines), unreadable=tuple(unreadable))


def _read_file(path: Path) -> Ledger:
    joined = JoinedLines()
    lines: list[LedgerLine] = []
    unreadable: list[str] = []
    try:
        with path.open("rb") as file:
            for line in lines_in(file):
                if line.values is None:
                    unreadable.append(f"{path}:{line.number}")
                else:
                    text = line.data.decode()
                    lines.append(LedgerLine(text=text, values=joined.joined(line.values)))
    except FileNotFoundError:
        return Ledger()
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be read: {error.strerror}") from error
    return Ledger(lines=tuple(lines), unreadable=tuple(unreadable))


T = TypeVar("T", TokenLine, EmittedLine)


def _checked(kind: type[T], line: LedgerLine, **known: Any) -> T:
    names = [field.name for field in fields(kind) if field.name not in known]
    missing = [name for name in names if name not in line.values]
    if missing:
        raise LedgerError(
            f"a {line.kind} record lacks {', '.join(missing)}: {line.text[:80]!r}; it was written "
            "by an incompatible version"
        )
    return kind(**{name: line.values[name] for name in names}, **known)
