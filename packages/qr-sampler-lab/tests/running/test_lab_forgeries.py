# SPDX-License-Identifier: Apache-2.0
"""What the owner of the laboratory's disk can forge is noticed, or said to be unknowable.

Each forgery leaves nothing else that could tell of it: chains, heads, totals, the line of the end
in the register, the report and the bag are made again.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import SettingsConfigDict

from qr_sampler import AMPLIFIERS, SignalAmplifier
from qr_sampler.errors import ConfigError
from qr_sampler.records.chain import head_of
from qr_sampler.settings import EnvironmentSettings
from qr_sampler_lab.experiments.bundle.bag import BagError, finish_bag
from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.bundle.making import make_bundle
from qr_sampler_lab.experiments.bundle.requests import LedgerRequests, check_journalled
from qr_sampler_lab.experiments.bundle.stated_report import compare_figures
from qr_sampler_lab.experiments.bundle.verifying import verify_bundle
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.files.errors import RecordError
from qr_sampler_lab.experiments.files.locking import locked_directory
from qr_sampler_lab.experiments.results.report import write_report
from qr_sampler_lab.experiments.results.revealed import unblind
from qr_sampler_lab.experiments.running.conduct import Conduct, conduct
from qr_sampler_lab.experiments.study import Study

Lines = list[dict[str, Any]]
Edit = Callable[[Lines], object]


def _nothing(lines: Lines) -> None:
    """Leaves lines as they are."""


def _chained(path: Path, edit: Edit) -> dict[str, Any]:
    """Edits a chained file and chains it anew; returns its number of lines and its head."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    prev, out = lines[0]["prev"], b""
    edit(lines)
    for n, line in enumerate(lines):
        line.update(n=n, prev=prev)
        if line["kind"] == "close":
            totals = Counter(each["kind"] for each in lines[:n])
            line.update(head=prev, totals=dict(totals))
        data = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode()
        prev = head_of(data)
        out += data + b"\n"
    path.write_bytes(out)
    return {"lines": len(lines), "head": prev}


def forge(
    bundle: Path,
    *,
    ledger: Edit = _nothing,
    journal: Edit = _nothing,
    register: Edit = _nothing,
    report: Callable[[dict[str, Any]], object] = lambda told: None,
) -> Checks:
    """Forges a bundle so that everything fits again, and returns what a verification finds."""
    data = bundle / "data"
    (path,) = (data / "ledgers").glob("*.jsonl")
    head = _chained(path, ledger)

    def with_heads(lines: Lines) -> None:
        for line in lines:
            if "ledgers" in line:
                line["ledgers"] = {path.name: head}
        journal(lines)

    _chained(data / "journal.jsonl", with_heads)
    study = Study(data)
    (end,) = (entry for entry in study.journal.entries() if entry.kind in ("finished", "aborted"))

    def with_end(lines: Lines) -> None:
        lines[-1].update(kind=end.kind, journal={"n": end.n, "head": end.head})
        register(lines)

    _chained(data / "register.jsonl", with_end)
    write_report(study, anyway=True)
    told = json.loads((study.report / "report.json").read_text())
    told["stamps"] = []
    report(told)
    (study.report / "report.json").write_text(json.dumps(told))
    (study.report / "report.txt").unlink()
    for tag in bundle.iterdir():
        if tag.is_file():
            tag.unlink()
    finish_bag(bundle, {})
    return verify_bundle(bundle)


def failing(checks: Checks) -> dict[str, list[str]]:
    """Returns what fails, by claim."""
    return {
        rung.name: [failure.what for failure in rung.failures]
        for rung in checks.rungs
        if rung.failed
    }


def unsaid(checks: Checks, name: str) -> str:
    """Returns what a claim leaves open."""
    return "\n".join(next(rung for rung in checks.rungs if rung.name == name).unsaid)


def first(lines: Lines, kind: str) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == kind)


def draw_of(lines: Lines, source: str) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == "draw" and line.get("source") == source)


def setting(lines: Lines, source: str) -> dict[str, Any]:
    (found,) = (each for each in lines[0]["sources"] if each["name"] == source)
    settings: dict[str, Any] = found["settings"]
    return settings


def test_a_bundle_that_is_made_anew_fails_nowhere_and_says_so(bundle: Path) -> None:
    # A second run of the same seal, of which the first one was thrown away, looks like this.
    checks = forge(bundle)
    assert failing(checks) == {}
    assert "no outside witness" in unsaid(checks, "journal")
    assert "no outside witness" in unsaid(checks, "register")
    assert "secrets were tried" in unsaid(checks, "plan")
    assert "tokenizer" in unsaid(checks, "requests")


@pytest.mark.parametrize(
    ("edit", "claim"),
    [
        (lambda lines: draw_of(lines, "mock_uniform").update(source="system"), "requests"),
        (lambda lines: draw_of(lines, "mock_uniform").update(fallback=True), "requests"),
        (lambda lines: first(lines, "sequence")["options"].update(top_k=3), "requests"),
        (lambda lines: lines[0]["settings"].update(top_k=3), "requests ledgers"),
        (lambda lines: lines[0]["settings"].update(ledger_required=False), "ledgers"),
        (lambda lines: lines[0].update(monotonic_ns=1), "ledgers"),
        (lambda lines: lines[0]["versions"].update(numpy="1.0"), "ledgers"),
        (lambda lines: setting(lines, "mock_uniform").update(mean=130.0), "ledgers"),
    ],
    ids=[
        "source",
        "fallback",
        "option",
        "default",
        "required",
        "age",
        "version",
        "setting of a source",
    ],
)
def test_ledgers_tell_what_their_engine_had(bundle: Path, edit: Edit, claim: str) -> None:
    found = failing(forge(bundle, ledger=edit)).keys()
    # What an audit notices of it, too, is no less true.
    assert set(claim.split()) <= found <= {"requests", "ledgers"}


NAMED = """
[left]
kind = "mock_uniform"
mean = 127.6

[right]
kind = "mock_uniform"
"""
"""Two devices of one kind."""

ARMS = [
    {"name": "biased", "source": "left", "block_bytes": 256},
    {"name": "control", "source": "right", "block_bytes": 256},
]


@pytest.fixture
def of_two_devices(make_study: Callable[..., Study], tmp_path: Path) -> Path:
    """The bundle of a study that compares two devices of one kind."""
    directory = tmp_path / "lab" / "study"
    directory.mkdir(parents=True)
    (directory / "sources.toml").write_text(NAMED)
    environment = {"QR_SOURCES_FILE": "sources.toml", "QR_MAX_KS_DISTANCE": 0.02}
    study = make_study(environment=environment, arms=ARMS)
    assert conduct(study, Conduct())
    unblind(study)
    write_report(study)
    make_bundle(study, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_two_devices_of_one_kind_are_compared(of_two_devices: Path) -> None:
    (path,) = (of_two_devices / "data" / "ledgers").glob("*.jsonl")
    genesis = json.loads(path.read_bytes().splitlines()[0])
    kinds = {source["name"]: source["kind"] for source in genesis["sources"]}
    # The third would take over if one of them were away.
    assert kinds == {"left": "mock_uniform", "right": "mock_uniform", "system": "system"}
    checks = verify_bundle(of_two_devices)
    assert failing(checks) == {}
    assert "left" not in unsaid(checks, "ledgers")
    # No environment declares these names where it is verified.
    assert not {"QR_SOURCES", "QR_SOURCES_FILE"} & os.environ.keys()


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: setting(lines, "left").update(mean=130.0),
        lambda lines: lines[0]["sources"][0].update(kind="system"),
    ],
    ids=["setting", "kind"],
)
def test_ledgers_tell_what_a_named_device_was(of_two_devices: Path, edit: Edit) -> None:
    assert "ledgers" in failing(forge(of_two_devices, ledger=edit))


def test_a_device_that_is_given_another_name_is_noticed(of_two_devices: Path) -> None:
    sources = of_two_devices / "data" / "sources.toml"
    sources.write_text(NAMED.replace("127.6", "127.5"))
    assert {"seal", "ledgers"} <= failing(verify_bundle(of_two_devices)).keys()


def test_names_that_nothing_would_seal_are_refused(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(NAMED)
    with pytest.raises(ConfigError, match="nothing would seal it"):
        make_study(environment={"QR_SOURCES_FILE": str(file)}, arms=ARMS)


@pytest.mark.parametrize("key", ["settings", "files", "versions"])
def test_what_a_genesis_leaves_out_cannot_be_said(bundle: Path, key: str) -> None:
    checks = forge(bundle, ledger=lambda lines: lines[0].pop(key))
    assert "which the genesis does not hold" in unsaid(checks, "ledgers")


def test_settings_that_no_protocol_names_are_named(bundle: Path) -> None:
    checks = forge(bundle, ledger=lambda lines: setting(lines, "mock_uniform").update(seed=5))
    assert "QR_MOCK_UNIFORM_SEED was 5" in unsaid(checks, "ledgers")


class Gains(EnvironmentSettings):
    """One that the protocol of the bundle states, and one that it does not."""

    model_config = SettingsConfigDict(env_prefix="QR_MOCK_UNIFORM_")

    mean: float = 128.0
    gain: float = 1.0


class Tuned(SignalAmplifier):
    """An amplifier of another project."""

    settings_model = Gains

    def amplify(self, blocks: Any, counts: Any = None) -> Any:
        raise AssertionError("nobody asked")


@pytest.mark.parametrize(
    ("name", "told", "fails", "said"),
    [
        ("tuned", {"mean": 127.6, "gain": 1.0}, False, ""),
        ("tuned", {"mean": 130.0, "gain": 1.0}, True, ""),
        ("tuned", {"mean": 127.6, "gain": 2.0}, False, "QR_MOCK_UNIFORM_GAIN was 2.0"),
        ("absent", {"gain": 2.0}, False, "settings of the signal_amplifier absent"),
        ("absent", None, False, ""),
    ],
)
def test_settings_of_amplifiers_are_compared_with_the_protocol(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    told: dict[str, Any] | None,
    fails: bool,
    said: str,
) -> None:
    monkeypatch.setattr(AMPLIFIERS, "_loaded", {**AMPLIFIERS._loaded, "tuned": Tuned})
    component = {
        "component": "signal_amplifier",
        "name": name,
        "distribution": "qr-tuned",
        "version": "1.0",
        "settings": told,
    }
    checks = forge(bundle, ledger=lambda lines: lines[0].update(components=[component]))
    assert ("ledgers" in failing(checks)) is fails
    assert said in unsaid(checks, "ledgers")
    if not said:
        assert "amplifier" not in unsaid(checks, "ledgers")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda told: told["figures"]["primary"].update(p_value=math.nan), "primary.p_value"),
        (lambda told: told["figures"]["primary"].update(estimate=math.inf), "primary.estimate"),
        (lambda told: told.update(kind="formal"), "kind"),
        (lambda told: told.update(ended="aborted"), "ended"),
        (lambda told: told["sessions"].update(planned=5), "sessions"),
        (lambda told: told.update(resumed=1), "resumed"),
        (lambda told: told.update(remark="confirmed"), "remark"),
    ],
)
def test_every_statement_of_a_report_is_compared(
    bundle: Path, edit: Callable[[dict[str, Any]], object], named: str
) -> None:
    found = failing(forge(bundle, report=edit))
    assert found.keys() == {"figures"}
    assert any(named in what for what in found["figures"])


@pytest.mark.parametrize(
    ("place", "stated", "found", "same"),
    [
        (".p_value", 1e-300, 9e-10, False),
        (".p_value", 0.02 * (1 + 1e-9), 0.02, True),
        (".selection_p", 0.0, 1e-13, False),
        (".estimate", 1e-15, -1e-15, True),
        (".estimate", 0.100001, 0.1, False),
        (".found", 1, True, False),
        (".low", None, 0.0, False),
    ],
)
def test_figures_are_compared_in_their_own_size(
    place: str, stated: Any, found: Any, same: bool
) -> None:
    checks = Checks()
    compare_figures(checks, place, stated, found)
    assert checks.fails != same


def interrupt(lines: Lines, *, resumed: bool) -> None:
    """Makes session 3 one that an engine has not survived."""
    (place,) = (
        n
        for n, line in enumerate(lines)
        if (line.get("session"), line.get("state")) == (3, "ended")
    )
    gone = lines.pop(place)
    if resumed:
        clocks = {name: value for name, value in gone.items() if name.endswith(("_ns", "_id"))}
        lines.insert(place, {"kind": "resumed", "interrupted": [3], **clocks})


def drop_tokens(lines: Lines) -> None:
    gone = {line["sequence"] for line in lines if line.get("trial") == "3"}
    lines[:] = [line for line in lines if line.get("sequence") not in gone]


def test_a_session_does_not_just_stop(one_at_a_time: Path) -> None:
    checks = forge(one_at_a_time, journal=lambda lines: interrupt(lines, resumed=False))
    assert "journal" in failing(checks)


def test_how_long_an_interrupted_session_was_cannot_be_said(one_at_a_time: Path) -> None:
    checks = forge(
        one_at_a_time,
        ledger=drop_tokens,
        journal=lambda lines: interrupt(lines, resumed=True),
    )
    assert "session 3 had: it was interrupted" in unsaid(checks, "counts")


def test_requests_that_the_journal_tells_of_are_the_planned_ones(bundle: Path) -> None:
    checks = forge(
        bundle,
        journal=lambda lines: next(line for line in lines if line.get("session") == 2).update(
            requests=["request-000004"]
        ),
    )
    assert failing(checks).keys() == {"requests"}


def swap_sessions(lines: Lines) -> None:
    """Gives the answers of two blocks to each other, arm by arm."""
    sequences = [line for line in lines if line["kind"] == "sequence"]
    for alias in {line["condition"] for line in sequences}:
        early, late = (
            next(x for x in sequences if (x["condition"], x["trial"]) == (alias, trial))
            for trial in ("1", "4")
        )
        for name in ("request_key", "trial"):
            early[name], late[name] = late[name], early[name]


def test_sessions_do_not_exchange_their_answers(one_at_a_time: Path) -> None:
    found = failing(forge(one_at_a_time, ledger=swap_sessions))
    assert "answered after requests that come later" in str(found["requests"])


def test_a_request_that_is_told_of_again_was_made_once(bundle: Path) -> None:
    # Files that continue others, and lines behind a gap, say again what they refer to.
    checks = forge(bundle, ledger=lambda lines: lines.insert(-2, dict(first(lines, "sequence"))))
    assert "requests" not in failing(checks)


def test_engines_are_those_that_the_journal_tells_of() -> None:
    found = LedgerRequests([])
    found.runs = {"a", "b"}
    begun = Entry("begun", 2, "", "", {"kind": "begun"})
    replicas = Entry("begun", 2, "", "", {"engine_arguments": {"data_parallel_size": 2}})
    resumed = Entry("resumed", 9, "", "", {"kind": "resumed"})
    for entries, fails in (([begun], True), ([begun, resumed], False), ([replicas], False)):
        checks = Checks()
        check_journalled(checks, [], entries, found)
        assert checks.fails == fails


@pytest.mark.parametrize("name", ["journal", "register"])
def test_time_does_not_go_back(bundle: Path, name: str) -> None:
    edits: dict[str, Any] = {name: lambda lines: lines[-1].update(monotonic_ns=1)}
    assert failing(forge(bundle, **edits)).keys() == {name}


def test_a_study_ends_once_in_the_register(bundle: Path) -> None:
    def end_twice(lines: Lines) -> None:
        lines.insert(2, {**lines[-1], "kind": "aborted", "reason": "it went badly"})

    assert failing(forge(bundle, register=end_twice)).keys() == {"register"}


def test_other_studies_of_the_laboratory_are_named(bundle: Path) -> None:
    def tried_before(lines: Lines) -> None:
        other = {
            **lines[-1],
            "kind": "sealed",
            "directory": "small-first",
            "study": "ab" * 32,
            "name": "small-first",
        }
        end = {**lines[-1], "kind": "aborted", "study": "ab" * 32, "reason": "it went badly"}
        lines.extend([other, end])

    checks = forge(bundle, register=tried_before)
    assert failing(checks) == {}
    told = unsaid(checks, "register")
    assert "small-first asked the same" in told
    assert "aborted (it went badly)" in told


def test_a_seal_that_fixes_too_little_is_none(bundle: Path) -> None:
    path = bundle / "data" / "seal.json"
    seal = json.loads(path.read_text())
    seal["files"] = {}
    seal["protocol"].pop("primary")
    path.write_text(json.dumps(seal, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    told = "\n".join(failing(verify_bundle(bundle))["seal"])
    assert "does not fix what PROTOCOL.yaml holds" in told
    assert "does not fix what prompts/a.txt holds" in told
    assert "primary of the protocol" in told


def test_a_seal_of_an_older_version_lacks_what_came_later(bundle: Path) -> None:
    path = bundle / "data" / "seal.json"
    seal = json.loads(path.read_text())
    assert seal["protocol"]["exclusions"].pop("suspect_tokens") == "exclude"
    path.write_text(json.dumps(seal, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    told = "\n".join(failing(verify_bundle(bundle))["seal"])
    # The journal begins with the digest of the other seal, and nothing else is wrong.
    assert "what the journal begins with" in told
    assert "of the protocol" not in told


@pytest.mark.parametrize("what", ["directory", "link", "pipe"])
def test_bundles_hold_files_and_directories_only(bundle: Path, tmp_path: Path, what: str) -> None:
    place = bundle / "data" / "report" / "report.txt"
    place.unlink()
    if what == "directory":
        place = bundle / "data" / "ledgers"
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere")
    elif what == "link":
        place.symlink_to(tmp_path / "lab")
    else:
        os.mkfifo(place)
    with pytest.raises(BagError, match="neither a file nor a directory"):
        verify_bundle(bundle)


def test_arms_stay_unknown_while_an_engine_runs(finished_study: Study) -> None:
    path = finished_study.journal.path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with (
        locked_directory(finished_study.ledgers),
        pytest.raises(RecordError, match="another process"),
    ):
        unblind(Study(finished_study.directory))
    assert unblind(Study(finished_study.directory)).kind == "unblinded"
