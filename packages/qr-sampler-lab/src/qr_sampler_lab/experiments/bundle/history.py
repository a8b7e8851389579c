# SPDX-License-Identifier: Apache-2.0
"""What the journal of a study and the register of its laboratory show of how it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.files.register import (
    Register,
    RegisteredStudy,
    receipt_faults,
    studies_in,
)
from qr_sampler_lab.experiments.study import Study

__all__ = ["check_journal", "check_register", "interrupted_sessions"]

_ONCE = ("sealed", "order", "begun", "finished", "aborted", "unblinded")
_ENDS = ("finished", "aborted")
_MOST_NAMED = 10
"""Most other studies of a register that are named."""


def check_journal(checks: Checks, entries: Sequence[Entry]) -> None:
    """Checks that lines of a journal are where they may be.

    Args:
        checks: Takes the findings.
        entries: The journal.
    """
    kinds = [entry.kind for entry in entries]
    if not kinds or kinds[0] != "sealed":
        checks.fail("journal", "it does not begin with the seal")
    for kind in _ONCE:
        if kinds.count(kind) > 1:
            checks.fail("journal", f"{kind} is there {kinds.count(kind)} times")
    ended, begun, ordered = False, False, False
    for entry in entries:
        ordered = ordered or entry.kind == "order"
        begun = begun or entry.kind == "begun"
        if entry.kind == "begun" and not ordered:
            checks.fail("journal", "the study began before its order was settled")
        if entry.kind in ("session", "resumed", "finished") and not begun:
            checks.fail("journal", f"line n {entry.n} ({entry.kind}) is before the beginning")
        if ended and entry.kind not in ("mark", "gap", "unblinded"):
            checks.fail("journal", f"line n {entry.n} ({entry.kind}) is behind the end")
        ended = ended or entry.kind in _ENDS
        if entry.kind == "unblinded" and not ended:
            checks.fail("journal", "the arms became known before the end")
    interrupted_sessions(checks, entries)
    _check_clocks(checks, "journal", entries)
    checks.cannot_say(
        "journal",
        "whether it is the only one of this seal: the bundle has no outside witness of it, and "
        "whoever has the laboratory's disk can run a study twice, or write its journal anew",
    )
    checks.cannot_say(
        "journal",
        "whether somebody looked at the ledgers before the end: they name the source of each draw",
    )


def interrupted_sessions(checks: Checks, entries: Sequence[Entry]) -> list[int]:
    """Returns the sessions that were begun and never ended, in order.

    Only what ends an engine interrupts a session: a line of kind ``resumed`` names it, or the study
    was aborted. Sessions that are served together all begin before the first of them ends.

    Args:
        checks: Takes what is out of order.
        entries: The journal.
    """
    seen: set[int] = set()
    running: set[int] = set()
    interrupted: set[int] = set()
    ending = False
    for entry in entries:
        if entry.kind == "session":
            number = entry.values["session"]
            if entry.values["state"] == "begun":
                if number in seen or (ending and running):
                    checks.fail("journal", f"session {number} is begun out of order")
                seen.add(number)
                running.add(number)
                ending = False
            else:
                if number not in running:
                    checks.fail("journal", f"session {number} is ended out of order")
                running.discard(number)
                ending = True
        elif entry.kind in ("resumed", *_ENDS):
            if entry.kind == "finished" and running:
                checks.fail("journal", f"the study is finished within sessions {sorted(running)}")
            interrupted |= running
            running.clear()
            if entry.kind == "resumed":
                told, found = entry.values.get("interrupted"), sorted(interrupted)
                checks.compare("journal", f"what line n {entry.n} calls interrupted", told, found)
    return sorted(interrupted | running)


def check_register(checks: Checks, study: Study, entries: Sequence[Entry]) -> None:
    """Checks the register in a bundle: its chain, this study in it, and which others there are.

    Args:
        checks: Takes the findings.
        study: The payload of the bundle.
        entries: The journal of the study.
    """
    lines = Register(study.directory / "register.jsonl").entries()
    seal, before = study.sealed.digest, study.sealed.seal.register_before
    standing = study.journal.standing()
    for fault in receipt_faults(lines, seal, standing.receipt, "register.jsonl"):
        checks.fail("register", fault)
    if before.lines:
        there = next((entry.head for entry in lines if entry.n == before.lines - 1), None)
        checks.compare("register", "its head before this study", there, before.head)
    _check_ends(checks, lines)
    _check_clocks(checks, "register", lines)
    studies = studies_in(lines)
    known = next((each for each in studies if each.seal == seal), None)
    ends = [entry for entry in entries if entry.kind in _ENDS]
    if known is None or known.end is None or not ends:
        checks.cannot_say("register", "how the study ended: it is open")
    else:
        told = {"n": ends[-1].n, "head": ends[-1].head}
        checks.compare("register", "the name of the study", known.name, study.sealed.seal.name)
        checks.compare("register", "the end of the study", known.end.kind, ends[-1].kind)
        checks.compare("register", "the line of its end", known.end.values["journal"], told)
    _tell_of_others(checks, [each for each in studies if each.seal != seal])
    checks.cannot_say(
        "register",
        "whether it has all studies of the laboratory: the bundle has no outside witness of it, "
        "and whoever has the disk can make another one; compare it with a head that somebody else "
        "has kept",
    )


def _check_clocks(checks: Checks, claim: str, lines: Sequence[Entry]) -> None:
    """Checks that the monotonic clock, which nobody can set, never goes back while a machine runs.

    Lines are stamped while no other process can append.
    """
    for before, line in pairwise(lines):
        same_boot = line.values.get("boot_id") == before.values.get("boot_id")
        if same_boot and line.values["monotonic_ns"] < before.values["monotonic_ns"]:
            checks.fail(claim, f"line n {line.n} is older than the one before it")


def _check_ends(checks: Checks, lines: Sequence[Entry]) -> None:
    """Checks that every study is sealed once, and ends once after that."""
    times: Counter[tuple[str, bool]] = Counter()
    for line in lines:
        if line.kind in ("sealed", *_ENDS):
            seal, is_end = str(line.values["study"]), line.kind in _ENDS
            times[seal, is_end] += 1
            if times[seal, is_end] > 1:
                checks.fail("register", f"line n {line.n}: {seal[:12]} is {line.kind} once more")
            if is_end and not times[seal, False]:
                checks.fail("register", f"line n {line.n}: {seal[:12]} ends and was never sealed")


def _tell_of_others(checks: Checks, others: Sequence[RegisteredStudy]) -> None:
    """Names other studies of the laboratory: one of them may have asked the same."""
    for other in others[:_MOST_NAMED]:
        state = other.end.kind if other.end else "open"
        reason = f" ({other.end.values.get('reason')})" if state == "aborted" and other.end else ""
        checks.cannot_say(
            "register",
            f"whether {other.name} asked the same: it is sealed there as "
            f"{other.seal[:12]} and {state}{reason}",
        )
    if len(others) > _MOST_NAMED:
        more = len(others) - _MOST_NAMED
        checks.cannot_say("register", f"whether {more:,} more studies in it asked the same")
