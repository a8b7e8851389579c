# SPDX-License-Identifier: Apache-2.0
"""Compares what the ledgers of a study hold with its plan and its journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qr_sampler.records.reader import lines_in, read_ledger
from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.plan import PlannedRequest, PlannedSession
from qr_sampler_lab.experiments.protocol import Protocol

__all__ = ["LedgerRequests", "check_counts", "check_journalled", "check_requests", "same_value"]


class LedgerRequests:
    """The sequences of ledgers, and the number of tokens of each request.

    Args:
        paths: The ledgers.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.sequences: list[tuple[str, dict[str, Any]]] = []
        """The names of files, and the lines in them that begin sequences."""
        self.tokens: Counter[str] = Counter()
        """Number of tokens by request key, those included that no number has selected."""
        self.forced: Counter[str] = Counter()
        """Number of ends without entropy by request key; a host may count one as a token."""
        self.strays = 0
        """Number of tokens that belong to no request with a key."""
        self.runs: set[str] = set()
        """The runs that have sequences."""
        self.settings: dict[str, Mapping[str, Any]] = {}
        """Settings of the engine by name of file."""
        self.redacted = False
        """Whether lines without text are among them, whose other fields no digest covers."""
        self._labels: Counter[tuple[Any, ...]] = Counter()
        self._run = ""
        for path in paths:
            for values in read_ledger(path):
                self._take(path.name, values)
            self.redacted = self.redacted or _has_redacted_lines(path)

    def labels(self) -> Iterable[tuple[Any, ...]]:
        """Returns the different keys, conditions, trials, sources and fallbacks of tokens."""
        return self._labels.keys()

    def _take(self, file: str, values: Mapping[str, Any]) -> None:
        if values["kind"] == "genesis":
            self._run = str(values.get("run_id"))
            self.settings[file] = values.get("settings") or {}
        elif values["kind"] == "sequence":
            self.runs.add(self._run)
            self.sequences.append((file, dict(values)))
        elif values["kind"] == "token":
            key = values.get("request_key")
            labels = (key, values.get("condition"), values.get("trial"))
            origin = (values.get("source"), bool(values.get("fallback")))
            self._labels[labels + origin] += 1
            if not key:
                self.strays += 1
            elif values.get("emitted") is not False:
                self.tokens[str(key)] += 1
        elif values["kind"] == "emission" and values.get("emitted") is False:
            self.tokens[str(values.get("request_key"))] -= 1
        elif values["kind"] in ("undecided", "forced") and values.get("emitted") is not False:
            counted = self.tokens if values["kind"] == "undecided" else self.forced
            counted[str(values.get("request_key"))] += 1


def _has_redacted_lines(path: Path) -> bool:
    with path.open("rb") as file:
        kinds = (line.values["kind"] for line in lines_in(file) if line.values is not None)
        return "redacted" in kinds


def check_journalled(
    checks: Checks,
    sessions: Sequence[PlannedSession],
    entries: Sequence[Entry],
    found: LedgerRequests,
) -> None:
    """Checks that the journal tells of the planned requests, and of every engine that had some.

    Args:
        checks: Takes the findings.
        sessions: The plan.
        entries: The journal.
        found: What the ledgers hold.
    """
    planned = {
        session.number: [request.request_key for request in session.requests]
        for session in sessions
    }
    engines, batch = 0, 0
    batches: dict[str, int] = {}
    for entry in entries:
        if entry.kind in ("begun", "resumed"):
            engines += _engines_of(entry)
        elif entry.kind == "session" and entry.values["state"] == "begun":
            number = entry.values["session"]
            what = f"the requests of session {number}"
            checks.compare("requests", what, entry.values.get("requests"), planned.get(number))
            batches.update(dict.fromkeys(planned.get(number, ()), batch))
        elif entry.kind == "session":
            batch += 1
    _check_turns(checks, batches, found)
    if len(found.runs) > engines:
        checks.fail(
            "requests",
            f"{len(found.runs)} engines have answered, and the journal tells of {engines}",
        )
    checks.cannot_say(
        "requests",
        "whether prompts were the sealed texts: that takes the tokenizer of the model",
    )


def _check_turns(checks: Checks, batches: Mapping[str, int], found: LedgerRequests) -> None:
    """Checks that requests were answered in the order in which the journal has their sessions.

    Args:
        checks: Takes the findings.
        batches: A number that is greater for requests that were made later, by request key.
        found: What the ledgers hold.
    """
    latest: dict[str, int] = {}
    seen: set[str] = set()
    for file, sequence in found.sequences:
        key, name = str(sequence.get("request_key")), str(sequence.get("sequence"))
        if name in seen:
            # Continued files say again what their lines refer to.
            continue
        seen.add(name)
        batch = batches.get(key, 0)
        if batch < latest.get(file, 0):
            checks.fail("requests", f"{file}: {key} was answered after requests that come later")
        latest[file] = max(batch, latest.get(file, 0))


def _engines_of(entry: Entry) -> int:
    """Returns how many engines run at once: each replica of vLLM writes a ledger."""
    replicas = entry.values.get("engine_arguments", {}).get("data_parallel_size", 1)
    return replicas if type(replicas) is int else 1


def check_requests(
    checks: Checks,
    protocol: Protocol,
    arms: Mapping[str, str],
    sessions: Sequence[PlannedSession],
    begun: Iterable[int],
    found: LedgerRequests,
) -> None:
    """Checks that all tokens belong to planned requests of begun sessions, under their arms.

    Args:
        checks: Takes the findings.
        protocol: What was planned.
        arms: Name of the arm by alias, of all phases.
        sessions: The plan.
        begun: Numbers of the sessions that the journal has begun.
        found: What the ledgers hold.
    """
    started = frozenset(begun)
    planned = {
        request.request_key: request
        for session in sessions
        if session.number in started
        for request in session.requests
    }
    if found.strays:
        checks.fail("requests", f"{found.strays:,} tokens belong to no request")
    for key, condition, trial, source, fallback in found.labels():
        request = planned.get(key)
        if key and request is None:
            checks.fail("requests", f"{key!r} is no request of a session that was begun")
        elif request is not None and (condition, trial) != (request.alias, str(request.session)):
            checks.fail("requests", f"{key}: its tokens are labelled {condition!r}, {trial!r}")
        if request is not None:
            meant = protocol.arm(arms[request.alias]).source
            if (source == meant) == fallback:
                told = f"{source!r}, {'' if fallback else 'not '}as a fallback"
                checks.fail("requests", f"{key}: its arm has {meant!r}; tokens came from {told}")
    seen: dict[str, set[str]] = {}
    prompts: dict[tuple[str, str], set[Any]] = {}
    for file, sequence in found.sequences:
        key = str(sequence.get("request_key"))
        # A continued file tells of the same sequence once more.
        seen.setdefault(key, set()).add(str(sequence.get("sequence")))
        if key in planned:
            digests = prompts.setdefault((file, planned[key].prompt), set())
            digests.add(sequence.get("prompt_digest"))
            settings = found.settings.get(file, {})
            _check_options(checks, protocol, arms, planned[key], sequence, settings)
    for (file, prompt), digests in prompts.items():
        # Digests have one key in each run.
        if len(digests) > 1:
            checks.fail("requests", f"{file}: requests with {prompt} had different prompts")
    for key, names in seen.items():
        if len(names) > 1:
            checks.fail("requests", f"{key} was made {len(names)} times; nothing may be repeated")


def check_counts(
    checks: Checks,
    protocol: Protocol,
    sessions: Sequence[PlannedSession],
    entries: Sequence[Entry],
    found: LedgerRequests,
) -> None:
    """Checks the numbers of tokens that the journal states, and the lengths of answers.

    Args:
        checks: Takes the findings.
        protocol: What was planned.
        sessions: The plan.
        entries: The journal.
        found: What the ledgers hold.
    """
    by_number = {session.number: session for session in sessions}
    ended = [
        entry.values
        for entry in entries
        if entry.kind == "session" and entry.values["state"] == "ended"
    ]
    for values in ended:
        session = by_number.get(values["session"])
        if session is None:
            checks.fail("counts", f"session {values['session']} is not in the plan")
            continue
        requests = Counter(request.alias for request in session.requests)
        what = f"session {session.number}: the number of"
        checks.compare("counts", f"{what} requests", values["requests"], dict(requests))
        _check_tokens(checks, what, session, values["tokens"], found)
        for request in session.requests:
            _check_length(checks, protocol, request, found)
    if found.forced:
        checks.cannot_say(
            "counts",
            f"what {len(found.forced):,} requests would have had that ended without entropy: only "
            "the ledger says that their source was away",
        )


def _check_tokens(
    checks: Checks,
    what: str,
    session: PlannedSession,
    told: Mapping[str, int],
    found: LedgerRequests,
) -> None:
    """Compares the tokens of a session by alias; a token that forces an end may count."""
    tokens: Counter[str] = Counter()
    forced: Counter[str] = Counter()
    for request in session.requests:
        tokens[request.alias] += found.tokens[request.request_key]
        forced[request.alias] += found.forced[request.request_key]
    fits = told.keys() == tokens.keys() and all(
        0 <= told[alias] - count <= forced[alias] for alias, count in tokens.items()
    )
    if not fits:
        checks.compare("counts", f"{what} tokens in the ledgers", dict(tokens), dict(told))


def _check_length(
    checks: Checks, protocol: Protocol, request: PlannedRequest, found: LedgerRequests
) -> None:
    count = found.tokens[request.request_key]
    ended_early = found.forced[request.request_key] > 0
    short = protocol.design.fixed_length and count < request.tokens and not ended_early
    if count > request.tokens or short:
        checks.fail(
            "counts", f"{request.request_key} has {count} tokens, and {request.tokens} were planned"
        )


def _check_options(
    checks: Checks,
    protocol: Protocol,
    arms: Mapping[str, str],
    request: PlannedRequest,
    sequence: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Compares the options that a request had with those of its arm, or of the engine."""
    options = sequence.get("options")
    if not isinstance(options, Mapping):
        checks.cannot_say("requests", "options of requests, which the ledgers do not hold")
        return
    arm = protocol.arm(arms[request.alias])
    wanted = {name: settings[name] for name in options if name in settings}
    wanted |= {
        name.removeprefix("qr_"): value
        for name, value in arm.request_options.items()
        if name != "qr_entropy_source"
    }
    wanted["source"] = arm.source
    for name, value in wanted.items():
        if not same_value(options.get(name), value):
            checks.fail(
                "requests",
                f"{request.request_key}: {name} is {options.get(name)!r}, its arm has {value!r}",
            )


def same_value(found: object, wanted: object) -> bool:
    """Returns whether two options are equal, one of which may have been text."""
    if found == wanted or str(found).lower() == str(wanted).lower():
        return True
    try:
        return float(str(found)) == float(str(wanted))
    except ValueError:
        return False
