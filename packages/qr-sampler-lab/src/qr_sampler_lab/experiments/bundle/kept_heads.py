# SPDX-License-Identifier: Apache-2.0
"""Heads that somebody else has kept, against the chained files of a bundle.

A head is the SHA-256 of one line, and every line holds that of the line before it. So whoever wrote
one down knows that no file in which a line has this digest was changed up to that line since.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from qr_sampler.errors import ConfigError
from qr_sampler.records.files import ledgers_in
from qr_sampler_cli.audit.reading.lines import raw_lines
from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.files.register import Register
from qr_sampler_lab.experiments.running.heads import original_head
from qr_sampler_lab.experiments.study import Study

__all__ = ["check_kept_heads", "checked_heads"]

_HEAD: Final = re.compile(r"[0-9a-f]{64}")


class Place(NamedTuple):
    """A line of a chained file."""

    claim: str
    """The claim that rests on the file."""
    file: str
    """Name of the file."""
    n: int
    """Number of the line, from 0."""
    certain: bool = True
    """Whether the line has the head, instead of only saying so: one whose text is left out."""


def checked_heads(heads: Sequence[str]) -> tuple[str, ...]:
    """Returns heads as they were typed.

    Raises:
        ConfigError: When one is not 64 hexadecimal digits.
    """
    lowered = tuple(head.strip().lower() for head in heads)
    for head in lowered:
        if not _HEAD.fullmatch(head):
            raise ConfigError(f"--head={head[:80]!r} is no SHA-256 in 64 hexadecimal digits")
    return lowered


def check_kept_heads(
    checks: Checks, study: Study, journal: Sequence[Entry], heads: Sequence[str]
) -> None:
    """Checks that every head is that of a line in the register, the journal or a ledger.

    Args:
        checks: Takes the findings: of a head that is found how far it reaches, of another one that
            the register fails, since no file is left that it could be of.
        study: The payload of the bundle.
        journal: Its journal.
        heads: Kept heads, in lower case.
    """
    found: dict[str, Place] = {}
    sought = frozenset(heads)
    for head, place in _lines_of(study, journal) if sought else ():
        if head in sought and (place.certain or head not in found):
            found[head] = place
    for head in heads:
        if head not in found:
            checks.fail("register", f"no line of any file has the kept head {head[:12]}…")
    for head, (claim, file, n, certain) in found.items():
        if certain:
            checks.note(claim, f"{file} up to its line n {n} is what the head {head[:12]}… was of")
        else:
            what = f"whether line n {n} of {file} had the kept head {head[:12]}…: it has no text"
            checks.cannot_say(claim, what)


def _lines_of(study: Study, journal: Sequence[Entry]) -> Iterator[tuple[str, Place]]:
    """Yields the heads of all lines of a bundle."""
    for entry in journal:
        yield entry.head, Place("journal", study.journal.path.name, entry.n)
    path = study.directory / "register.jsonl"
    for entry in Register(path).entries():
        yield entry.head, Place("register", path.name, entry.n)
    for ledger in ledgers_in(study.ledgers) if study.ledgers.is_dir() else ():
        for n, raw in enumerate(raw_lines(ledger)):
            head = original_head(raw)
            yield head, Place("ledgers", ledger.name, n, certain=head == raw.head)
