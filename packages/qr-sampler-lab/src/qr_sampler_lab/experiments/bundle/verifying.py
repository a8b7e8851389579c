# SPDX-License-Identifier: Apache-2.0
"""Checks a bundle from what is in it: no network, no secret, no trust in whoever made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qr_sampler.records.files import ledgers_in
from qr_sampler_lab.experiments.bundle.bag import PAYLOAD, BagError, digest_of, problems_of
from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.bundle.engines import check_ledgers
from qr_sampler_lab.experiments.bundle.history import (
    check_journal,
    check_register,
    interrupted_sessions,
)
from qr_sampler_lab.experiments.bundle.kept_heads import check_kept_heads
from qr_sampler_lab.experiments.bundle.making import is_below
from qr_sampler_lab.experiments.bundle.requests import (
    LedgerRequests,
    check_counts,
    check_journalled,
    check_requests,
)
from qr_sampler_lab.experiments.bundle.rounds import check_rounds
from qr_sampler_lab.experiments.bundle.stated_report import check_report
from qr_sampler_lab.experiments.environment import files_in
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.results.figures import StudyData
from qr_sampler_lab.experiments.results.observations import observations_in
from qr_sampler_lab.experiments.results.revealed import Revealed, reveal
from qr_sampler_lab.experiments.running.heads import head_in
from qr_sampler_lab.experiments.running.stop_rule import StopRule, due_sessions
from qr_sampler_lab.experiments.study import Study

__all__ = ["verify_bundle"]


def verify_bundle(directory: Path, kept_heads: Sequence[str] = ()) -> Checks:
    """Returns what a bundle shows, claim by claim.

    Args:
        directory: The bundle.
        kept_heads: Heads of lines that somebody else has kept, in lower case.

    Raises:
        BagError: When it is no bundle.
        StudyError: When there is no study in it.
    """
    checks = Checks()
    for problem in problems_of(directory):
        checks.fail("bag", problem)
    payload = directory / PAYLOAD
    if not payload.is_dir():
        raise BagError(f"{directory} is no bundle: it has no directory {PAYLOAD}")
    _Verification(Study(payload), checks, kept_heads).run()
    return checks


class _Verification:
    """One study, and what is known of it so far."""

    def __init__(self, study: Study, checks: Checks, kept_heads: Sequence[str]) -> None:
        self._study = study
        self._checks = checks
        self._kept_heads = kept_heads
        self._entries: Sequence[Entry] = ()

    def run(self) -> None:
        checks = self._checks
        with checks.of("journal"):
            self._entries = self._study.journal.entries()
            check_journal(checks, self._entries)
        with checks.of("seal"):
            self._check_seal()
        with checks.of("plan"):
            check_rounds(checks, self._study.sealed.seal, self._entries)
        with checks.of("register"):
            check_register(checks, self._study, self._entries)
            check_kept_heads(checks, self._study, self._entries, self._kept_heads)
        revealed = self._reveal()
        with checks.of("ledgers"):
            has_sessions = any(entry.kind == "session" for entry in self._entries)
            check_ledgers(checks, self._study, has_sessions=has_sessions)
        if revealed is None:
            for name in ("requests", "counts", "stopping", "figures"):
                checks.cannot_say(name, "without the plan")
            return
        with checks.of("counts"):
            self._check_sessions(revealed)
        with checks.of("figures"):
            check_report(checks, self._study, revealed)

    def _reveal(self) -> Revealed | None:
        """Returns the plan if it follows from the seal and from what the journal reveals."""
        found: list[Revealed] = []
        with self._checks.of("plan"):
            found.append(reveal(self._study))
        return found[0] if found else None

    def _check_seal(self) -> None:
        study, checks = self._study, self._checks
        sealed = study.sealed
        begun_with = self._entries[0].values.get("seal") if self._entries else None
        checks.compare("seal", "what the journal begins with", begun_with, sealed.digest)
        protocol = study.protocol
        fixed = (study.protocol_path.name, *(prompt.file for prompt in protocol.prompts))
        for name in sorted({*fixed, *files_in(protocol).values()} - sealed.seal.files.keys()):
            checks.fail("seal", f"it does not fix what {name} holds")
        for name, digest in sealed.seal.files.items():
            path = study.directory / name
            if not (is_below(name) and path.is_file()) and name != study.protocol_path.name:
                checks.cannot_say("seal", f"whether {name} is what was sealed: it is left out")
            elif digest_of(path) != digest:
                checks.fail("seal", f"{name} was changed after the seal")
        told, was = protocol.model_dump(mode="json"), sealed.seal.completed_protocol
        for key in sorted(told.keys() | was.keys()):
            checks.compare("seal", f"{key} of the protocol", told.get(key), was.get(key))
        checks.compare("seal", "the name", sealed.seal.name, protocol.name)
        checks.compare("seal", "N", study.protocol.tokens_per_arm, sealed.seal.tokens_per_arm)

    def _check_sessions(self, revealed: Revealed) -> None:
        study, checks = self._study, self._checks
        paths = ledgers_in(study.ledgers) if study.ledgers.is_dir() else []
        found = {path.name: path for path in paths}
        for name in sorted(revealed.heads.keys() | found.keys()):
            there = head_in(found[name]) if name in found else None
            checks.compare("counts", f"the end of {name}", there, revealed.heads.get(name))
        begun = [
            entry.values["session"]
            for entry in self._entries
            if entry.kind == "session" and entry.values["state"] == "begun"
        ]
        requests = LedgerRequests(paths)
        if requests.redacted:
            for name in ("requests", "counts", "stopping", "figures"):
                checks.cannot_say(
                    name,
                    "whether numbers in lines without text are those of the originals: no digest "
                    "covers them, so they are the word of whoever made the bundle",
                )
        with checks.of("requests"):
            check_journalled(checks, revealed.sessions, self._entries, requests)
            check_requests(
                checks, study.protocol, revealed.arms, revealed.sessions, begun, requests
            )
        check_counts(checks, study.protocol, revealed.sessions, self._entries, requests)
        for number in interrupted_sessions(Checks(), self._entries):
            checks.cannot_say(
                "counts",
                f"how many tokens session {number} had: it was interrupted, and what a killed "
                "engine leaves has no end",
            )
        with checks.of("stopping"):
            self._check_stopping(revealed, begun, paths)

    def _check_stopping(
        self, revealed: Revealed, begun: Sequence[int], paths: Sequence[Path]
    ) -> None:
        """Follows the rule through the blocks that there are."""
        checks, protocol = self._checks, self._study.protocol
        data = StudyData(protocol, revealed.main_arms, revealed.sessions)
        data.add(observations_in(paths))
        rule = StopRule(data, revealed.sessions)
        rule.session_is_over(max(begun, default=-1))
        due = [session.number for session in due_sessions(revealed.sessions, rule.stopped_after)]
        checks.compare("plan", "the order of the sessions", list(begun), due[: len(begun)])
        ends = {entry.kind: entry.values for entry in self._entries}
        if "finished" in ends:
            checks.compare("stopping", "the number of sessions", len(begun), len(due))
            told = ends["finished"].get("stopped_after")
            checks.compare("stopping", "the block that it stopped after", told, rule.stopped_after)
        elif "aborted" in ends:
            reason = ends["aborted"].get("reason")
            checks.cannot_say("stopping", f"what its end would have been; it was aborted: {reason}")
        else:
            checks.fail("stopping", "the study is open, and unblinded")
