# SPDX-License-Identifier: Apache-2.0
"""Checks a bundle from what is in it: no network, no secret, no trust in whoever made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import lines_in
from qr_sampler_cli.audit.auditor import audit_runs
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.audit.witness_options import WitnessOptions
from qr_sampler_lab.experiments.bundle.bag import PAYLOAD, BagError, problems_of
from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.bundle.making import is_below
from qr_sampler_lab.experiments.bundle.requests import (
    LedgerRequests,
    check_counts,
    check_requests,
)
from qr_sampler_lab.experiments.bundle.rounds import check_rounds
from qr_sampler_lab.experiments.environment import installed_code
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.files.errors import RecordError
from qr_sampler_lab.experiments.files.register import Register, receipt_faults
from qr_sampler_lab.experiments.protocol.files import read_bounded
from qr_sampler_lab.experiments.results.figures import StudyData
from qr_sampler_lab.experiments.results.observations import observations_in
from qr_sampler_lab.experiments.results.report import REPORT_FORMAT, figures_of
from qr_sampler_lab.experiments.results.report_text import report_text
from qr_sampler_lab.experiments.results.revealed import Revealed, reveal
from qr_sampler_lab.experiments.running.heads import head_in
from qr_sampler_lab.experiments.running.stop_rule import StopRule, due_sessions
from qr_sampler_lab.experiments.study import Study

__all__ = ["verify_bundle"]

_LARGEST_REPORT: Final = 2**26

_DEEPEST: Final = 32
"""Most levels of lists and mappings; a report has six."""


def verify_bundle(directory: Path) -> Checks:
    """Returns what a bundle shows, claim by claim.

    Args:
        directory: The bundle.

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
    _Verification(Study(payload), checks).run()
    return checks


class _Verification:
    """One study, and what is known of it so far."""

    def __init__(self, study: Study, checks: Checks) -> None:
        self._study = study
        self._checks = checks
        self._entries: Sequence[Entry] = ()

    def run(self) -> None:
        checks = self._checks
        with checks.of("journal"):
            self._entries = self._study.journal.entries()
            _check_order_of(self._entries, checks)
        with checks.of("seal"):
            self._check_seal()
        with checks.of("plan"):
            check_rounds(checks, self._study.sealed.seal, self._entries)
        with checks.of("register"):
            self._check_register()
        revealed = self._reveal()
        with checks.of("ledgers"):
            self._check_ledgers()
        if revealed is None:
            for name in ("requests", "counts", "stopping", "figures"):
                checks.cannot_say(name, "without the plan")
            return
        with checks.of("counts"):
            self._check_sessions(revealed)
        with checks.of("figures"):
            self._check_figures(revealed)

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
        for name, digest in sealed.seal.files.items():
            path = study.directory / name
            if not (is_below(name) and path.is_file()) and name != study.protocol_path.name:
                checks.cannot_say("seal", f"whether {name} is what was sealed: it is left out")
            elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                checks.fail("seal", f"{name} was changed after the seal")
        told = study.protocol.model_dump(mode="json")
        for key, value in sealed.seal.protocol.items():
            checks.compare("seal", f"{key} of the protocol", told.get(key), value)
        checks.compare("seal", "N", study.protocol.tokens_per_arm, sealed.seal.tokens_per_arm)

    def _check_register(self) -> None:
        study, checks = self._study, self._checks
        path = study.directory / "register.jsonl"
        entries = Register(path).entries()
        standing = study.journal.standing()
        for fault in receipt_faults(
            entries, study.sealed.digest, standing.receipt, "register.jsonl"
        ):
            checks.fail("register", fault)
        before = study.sealed.seal.register_before
        receipt = entries[standing.receipt["n"]] if len(entries) > standing.receipt["n"] else None
        if receipt is not None and before.lines:
            there = next((entry.head for entry in entries if entry.n == before.lines - 1), None)
            checks.compare("register", "its head before this study", there, before.head)
        known = Register(path).study(study.sealed.digest)
        ends = [entry for entry in self._entries if entry.kind in ("finished", "aborted")]
        if known is None or known.end is None or not ends:
            checks.cannot_say("register", "how the study ended: it is open")
            return
        told = {"n": ends[-1].n, "head": ends[-1].head}
        checks.compare("register", "the end of the study", known.end.kind, ends[-1].kind)
        checks.compare("register", "the line of its end", known.end.values["journal"], told)

    def _check_ledgers(self) -> None:
        study, checks = self._study, self._checks
        paths = ledgers_in(study.ledgers) if study.ledgers.is_dir() else []
        if not paths:
            checks.fail("ledgers", "there is none")
            return
        digest = study.sealed.digest
        sealed_code = study.sealed.seal.code
        for path in paths:
            genesis = _first_line(path)
            checks.compare("ledgers", f"the seal of {path.name}", genesis.get("seal"), digest)
            for name, code in (genesis.get("files") or {}).items():
                if name in sealed_code:
                    checks.compare(
                        "ledgers", f"{path.name}: the code of {name}", code, sealed_code[name]
                    )
            _check_settings(checks, study, path, genesis)
        self._check_models(paths)
        evidence = WitnessOptions(seal=study.seal_path).evidence()
        for run in audit_runs(ledgers_of(paths), evidence=evidence):
            for rung in run.rungs:
                for failure in rung.failures:
                    checks.fail("ledgers", f"{rung.name}: {failure.where} {failure.what}")
                if rung.status == "cannot be said":
                    reason = next(iter(rung.unsaid.values())).what
                    checks.cannot_say("ledgers", f"{rung.name}: {reason}")

    def _check_models(self, paths: Sequence[Path]) -> None:
        sealed = self._study.sealed.seal.model
        models = [values for path in paths for values in _lines_of_kind(path, "model")]
        if not models:
            self._checks.cannot_say("ledgers", "which model's files the engine had")
        for values in models:
            self._checks.compare(
                "ledgers",
                "the model's manifest",
                values.get("manifest_sha256"),
                sealed.manifest_sha256,
            )

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
        check_requests(checks, study.protocol, revealed.arms, revealed.sessions, begun, requests)
        check_counts(checks, study.protocol, revealed.sessions, self._entries, requests)
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

    def _check_figures(self, revealed: Revealed) -> None:
        study, checks = self._study, self._checks
        path = study.report / "report.json"
        if not path.is_file():
            checks.cannot_say("figures", "whether a report is right: there is none")
            return
        report = _json(path)
        checks.compare("figures", "the format of the report", report.get("format"), REPORT_FORMAT)
        checks.compare("figures", "the seal of the report", report.get("seal"), study.sealed.digest)
        for stamp in report.get("stamps") or ():
            checks.cannot_say("figures", f"what sealed code would say: the report says {stamp}")
        here, sealed = installed_code(study.protocol), study.sealed.seal.code
        other = sorted(name for name, code in sealed.items() if here.get(name) != code)
        if other:
            checks.cannot_say(
                "figures",
                f"what the sealed code would say: {', '.join(other)} are not installed as sealed; "
                "the comparison is with what is installed here",
            )
        self._check_pages(report, same_code=not other)
        figures = json.loads(json.dumps(figures_of(study, revealed)))
        _compare_figures(checks, "", report.get("figures"), figures)

    def _check_pages(self, report: Mapping[str, Any], *, same_code: bool) -> None:
        """Compares the text of the report with what is made of its figures."""
        study, checks = self._study, self._checks
        for path in sorted(study.report.rglob("*")):
            if path.name == "report.txt":
                text = report_text(report, study.protocol).encode()
                if path.read_bytes() != text and same_code:
                    checks.fail("figures", "report.txt is not the text of report.json")
                elif path.read_bytes() != text:
                    checks.cannot_say("figures", "whether report.txt is that of the sealed code")
            elif path.is_file() and path.name != "report.json":
                checks.cannot_say(
                    "figures", f"whether {path.name} is right: `report` makes it anew"
                )


def _check_order_of(entries: Sequence[Entry], checks: Checks) -> None:
    """Checks that lines of a journal are where they may be."""
    kinds = [entry.kind for entry in entries]
    if not kinds or kinds[0] != "sealed":
        checks.fail("journal", "it does not begin with the seal")
    for kind in ("sealed", "order", "begun", "finished", "aborted", "unblinded"):
        if kinds.count(kind) > 1:
            checks.fail("journal", f"{kind} is there {kinds.count(kind)} times")
    ended, begun, sessions = False, False, set()
    for entry in entries:
        begun = begun or entry.kind == "begun"
        if entry.kind in ("session", "resumed", "finished") and not begun:
            checks.fail("journal", f"line n {entry.n} ({entry.kind}) is before the beginning")
        if ended and entry.kind not in ("mark", "gap", "unblinded"):
            checks.fail("journal", f"line n {entry.n} ({entry.kind}) is behind the end")
        ended = ended or entry.kind in ("finished", "aborted")
        if entry.kind == "unblinded" and not ended:
            checks.fail("journal", "the arms became known before the end")
        if entry.kind == "session":
            state = entry.values["state"], entry.values["session"]
            if state in sessions or (state[0] == "ended" and ("begun", state[1]) not in sessions):
                checks.fail("journal", f"session {state[1]} is {state[0]} out of order")
            sessions.add(state)


def _check_settings(checks: Checks, study: Study, path: Path, genesis: Mapping[str, Any]) -> None:
    """Compares settings in a genesis with those that the protocol names."""
    settings = genesis.get("settings")
    for name, value in study.protocol.environment.items():
        field = name.removeprefix("QR_").lower()
        if isinstance(settings, Mapping) and field in settings and field != "baseline_file":
            found = settings[field]
            if str(found).lower() != str(value).lower() and found != value:
                checks.fail("ledgers", f"{path.name}: {name} was {found!r}, not {value!r}")


def _compare_figures(checks: Checks, place: str, stated: Any, found: Any) -> None:
    """Compares figures one by one; what depends on the order of additions may differ by 1e-9."""
    if isinstance(stated, dict) and isinstance(found, dict):
        for key in sorted(stated.keys() | found.keys()):
            _compare_figures(checks, f"{place}.{key}", stated.get(key), found.get(key))
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for index, pair in enumerate(zip(stated, found, strict=True)):
            _compare_figures(checks, f"{place}.{index}", *pair)
    elif isinstance(stated, float) and isinstance(found, float):
        if abs(stated - found) > 1e-9 * max(1.0, abs(found)):
            checks.compare("figures", place.removeprefix("."), stated, found)
    else:
        checks.compare("figures", place.removeprefix("."), stated, found)


def _first_line(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        line = next(lines_in(file), None)
    return {} if line is None or line.values is None else line.values


def _lines_of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        return [
            line.values
            for line in lines_in(file)
            if line.values is not None and line.values["kind"] == kind
        ]


def _json(path: Path) -> dict[str, Any]:
    data = read_bounded(path, _LARGEST_REPORT)
    if _nesting(data) > _DEEPEST:
        # Recursion has no limit of its own where libraries have raised it.
        raise RecordError(f"{path} is nested too deeply")
    try:
        values = json.loads(data)
    except ValueError as error:
        raise RecordError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise RecordError(f"{path} is no report")
    return values


def _nesting(data: bytes) -> int:
    """Returns how deeply brackets are nested, those in texts included."""
    read = np.frombuffer(data, dtype=np.uint8)
    steps = np.isin(read, (ord("["), ord("{"))).astype(np.int64)
    steps -= np.isin(read, (ord("]"), ord("}")))
    return int(np.cumsum(steps).max(initial=0))
