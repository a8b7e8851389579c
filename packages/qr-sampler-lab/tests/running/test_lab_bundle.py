# SPDX-License-Identifier: Apache-2.0
"""Bundles are whole, checked without a network, and show what was done to a study."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qr_entropy_sources.latency_profile import LatencyProfile, LatencySeries
from qr_sampler.errors import ConfigError
from qr_sampler.records.chain import head_of
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.redaction import redact
from qr_sampler_lab.experiments.bundle import making
from qr_sampler_lab.experiments.bundle.bag import (
    MANIFEST,
    BagError,
    digest_of,
    finish_bag,
    problems_of,
)
from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.bundle.kept_heads import checked_heads
from qr_sampler_lab.experiments.bundle.making import make_bundle
from qr_sampler_lab.experiments.bundle.verifying import verify_bundle
from qr_sampler_lab.experiments.ending import abort_study
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.results.report import write_report
from qr_sampler_lab.experiments.results.revealed import unblind
from qr_sampler_lab.experiments.running.conduct import Conduct, conduct
from qr_sampler_lab.experiments.running.heads import head_in
from qr_sampler_lab.experiments.study import Study


def test_a_bundle_of_a_finished_study_verifies(bundle: Path) -> None:
    checks = verify_bundle(bundle)
    assert not checks.fails
    statuses = {rung.name: rung.status for rung in checks.rungs}
    holds = {"bag", "counts", "stopping", "figures"}
    # The others need what a rehearsal does not have: an outside witness, a round of drand, a model.
    assert {name for name, status in statuses.items() if status == "holds"} == holds


def test_it_is_verified_where_there_is_no_network(bundle: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if not shutil.which(alone[0]) or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    command = [sys.executable, "-m", "qr_sampler_cli", "experiment", "verify", str(bundle)]
    done = subprocess.run([*alone, *command], check=True, capture_output=True, text=True)
    assert "10 figures: holds" in done.stdout


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def notes_on(checks: Checks, name: str) -> list[str]:
    (notes,) = [rung.notes for rung in checks.rungs if rung.name == name]
    return notes


def test_a_head_that_was_kept_elsewhere_is_looked_for(bundle: Path) -> None:
    (ledger, *_) = ledgers_in(bundle / "data" / "ledgers")
    files = {
        "register": bundle / "data" / "register.jsonl",
        "journal": bundle / "data" / "journal.jsonl",
        "ledgers": ledger,
    }
    for claim, path in files.items():
        checks = verify_bundle(bundle, [hashlib.sha256(lines_of(path)[2]).hexdigest()])
        assert not checks.fails
        assert [path.name in note and "line n 2 " in note for note in notes_on(checks, claim)] == [
            True
        ]
    unknown = verify_bundle(bundle, ["ab" * 32])
    assert unknown.status("register") == "fails"


def test_a_kept_head_tells_of_a_register_that_was_made_anew(bundle: Path) -> None:
    register = bundle / "data" / "register.jsonl"
    kept = head_of(lines_of(register)[-1])
    drop_end(bundle)
    rebag(bundle)
    assert not verify_bundle(bundle).fails
    assert verify_bundle(bundle, [kept]).status("register") == "fails"


def test_a_head_of_a_line_without_its_text_cannot_be_confirmed(
    finished_study: Study, tmp_path: Path
) -> None:
    (ledger, *_) = ledgers_in(finished_study.ledgers)
    (line, *_) = [line for line in lines_of(ledger) if line.startswith(b'{"kind":"token"')]
    make_bundle(finished_study, tmp_path / "bundle", text=False)
    checks = verify_bundle(tmp_path / "bundle", [head_of(line)])
    assert not checks.fails
    assert "ledgers" in {rung.name for rung in checks.rungs if "kept head" in str(rung.unsaid)}


@pytest.mark.parametrize("head", ["", "ab", "g" * 64, "ab" * 33])
def test_what_is_no_head_is_refused(head: str) -> None:
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        checked_heads([head])


def test_sha256sum_agrees(bundle: Path) -> None:
    sha256sum = shutil.which("sha256sum")
    if sha256sum is None:
        pytest.skip("there is no sha256sum here")
    for manifest in (MANIFEST, "tagmanifest-sha256.txt"):
        subprocess.run([sha256sum, "--quiet", "-c", manifest], cwd=bundle, check=True)


def test_the_key_stays_where_it_is(bundle: Path) -> None:
    assert not list(bundle.rglob("key.json"))


def test_the_crate_describes_every_file(bundle: Path) -> None:
    crate = json.loads((bundle / "data" / "ro-crate-metadata.json").read_text())
    described = {entity["@id"] for entity in crate["@graph"] if entity["@type"] == "File"}
    there = {
        path.relative_to(bundle / "data").as_posix()
        for path in (bundle / "data").rglob("*")
        if path.is_file()
    }
    assert described == there - {"ro-crate-metadata.json"}
    descriptor, dataset = crate["@graph"][:2]
    assert descriptor["about"] == {"@id": dataset["@id"]} == {"@id": "./"}
    assert {part["@id"] for part in dataset["hasPart"]} == described


def rebag(bundle: Path) -> None:
    """Makes the digests of the bag fit again, as anybody can who changes a file."""
    for path in bundle.iterdir():
        if path.is_file():
            path.unlink()
    finish_bag(bundle, {})


def edited_lines(path: Path, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    """Edits the lines of a chained file, and chains them anew from the seal or zeros on."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    first = lines[0]["prev"]
    edit(lines)
    prev, out = first, b""
    for n, line in enumerate(lines):
        line.update(n=n, prev=prev)
        data = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode()
        prev = head_of(data)
        out += data + b"\n"
    path.write_bytes(out)


def ledger(bundle: Path) -> Path:
    (path,) = (bundle / "data" / "ledgers").glob("*.jsonl")
    return path


def in_ledger(edit: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    return lambda bundle: edited_lines(ledger(bundle), edit)


def in_journal(edit: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    return lambda bundle: edited_lines(bundle / "data" / "journal.jsonl", edit)


def in_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        path = bundle / "data" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


def drop_session(lines: list[dict[str, Any]]) -> None:
    lines[:] = [line for line in lines if line.get("session") != 3]


def drop_its_tokens(lines: list[dict[str, Any]]) -> None:
    gone = {line["sequence"] for line in lines if line.get("trial") == "3"}
    lines[:] = [line for line in lines if line.get("sequence") not in gone]


def swap_arms(lines: list[dict[str, Any]]) -> None:
    aliases = sorted({line["condition"] for line in lines if line["kind"] == "sequence"})
    other = dict(zip(aliases, reversed(aliases), strict=True))
    for line in lines:
        if line["kind"] == "sequence":
            line["condition"] = other[line["condition"]]


def swap_names(lines: list[dict[str, Any]]) -> None:
    told = lines[-1]["aliases"]
    lines[-1]["aliases"] = dict(zip(told, reversed(list(told.values())), strict=True))


def other_key(lines: list[dict[str, Any]]) -> None:
    lines[-1]["alias_key"] = "ab" * 32


def raise_u(lines: list[dict[str, Any]]) -> None:
    next(line for line in lines if line["kind"] == "token")["statistic"] += 1.0


def huge_number(lines: list[dict[str, Any]]) -> None:
    next(line for line in lines if line["kind"] == "token")["statistic"] = 10**400


def clear_fallback(lines: list[dict[str, Any]]) -> None:
    next(line for line in lines if line["kind"] == "draw")["fallback"] = True


def stop_early(lines: list[dict[str, Any]]) -> None:
    lines[:] = [line for line in lines if line.get("session") != 5]


def unseal(lines: list[dict[str, Any]]) -> None:
    lines[0]["seal"] = "0" * 64


def repeat_request(lines: list[dict[str, Any]]) -> None:
    first = next(line for line in lines if line["kind"] == "sequence")
    lines.insert(-1, {**first, "sequence": "ff" * 16})


def stray_request(lines: list[dict[str, Any]]) -> None:
    next(line for line in lines if line["kind"] == "sequence")["request_key"] = "request-777777"


def other_block(lines: list[dict[str, Any]]) -> None:
    next(line for line in lines if line["kind"] == "sequence")["options"]["sample_count"] = 64


def unordered(lines: list[dict[str, Any]]) -> None:
    lines[-2], lines[-1] = lines[-1], lines[-2]


def other_order(lines: list[dict[str, Any]]) -> None:
    begun = [line for line in lines if line.get("state") == "begun"]
    begun[2]["session"], begun[3]["session"] = 3, 2
    ended = [line for line in lines if line.get("state") == "ended"]
    ended[2]["session"], ended[3]["session"] = 3, 2


def other_model(lines: list[dict[str, Any]]) -> None:
    model = {"kind": "model", "name": "toy", "manifest_sha256": "c" * 64, "files": {}}
    lines.insert(2, model)


def other_setting(lines: list[dict[str, Any]]) -> None:
    lines[0]["settings"]["max_ks_distance"] = 0.5


def other_prompt(lines: list[dict[str, Any]]) -> None:
    next(line for line in lines if line["kind"] == "sequence")["prompt_digest"] = "d" * 64


def other_code(lines: list[dict[str, Any]]) -> None:
    lines[0]["files"]["qr-sampler-core"] = "a" * 64


def drop_end(bundle: Path) -> None:
    path = bundle / "data" / "register.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def other_register(bundle: Path) -> None:
    edited_lines(bundle / "data" / "register.jsonl", lambda lines: lines[1].update(name="another"))


def report_figure(bundle: Path) -> None:
    path = bundle / "data" / "report" / "report.json"
    report = json.loads(path.read_text())
    report["figures"]["primary"]["p_value"] = 0.0001
    path.write_text(json.dumps(report))


def report_exclusions(bundle: Path) -> None:
    path = bundle / "data" / "report" / "report.json"
    report = json.loads(path.read_text())
    report["figures"]["arms"]["control"]["excluded"] = {"fallback": 3}
    path.write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("manipulate", "claims"),
    [
        pytest.param(in_text("PROTOCOL.yaml", "alpha: 0.01", "alpha: 0.05"), "seal", id="alpha"),
        pytest.param(in_text("PROTOCOL.yaml", "blocks: 6", "blocks: 5"), "seal", id="N"),
        pytest.param(in_text("prompts/a.txt", "Prompt", "prompt"), "seal", id="prompt"),
        pytest.param(in_text("seal.json", '"small"', '"other"'), "seal", id="seal"),
        pytest.param(in_journal(drop_session), "plan requests register", id="session"),
        pytest.param(in_ledger(drop_its_tokens), "counts", id="tokens of a session"),
        pytest.param(in_ledger(swap_arms), "requests counts", id="arms in the ledger"),
        pytest.param(in_journal(swap_names), "plan", id="arms in the journal"),
        pytest.param(in_journal(other_key), "plan", id="key"),
        pytest.param(in_ledger(raise_u), "ledgers counts", id="statistic"),
        pytest.param(in_ledger(huge_number), "counts", id="number that no float holds"),
        pytest.param(in_ledger(clear_fallback), "counts figures", id="fallback"),
        pytest.param(in_journal(stop_early), "stopping", id="early stop"),
        pytest.param(in_ledger(unseal), "ledgers", id="ledger without seal"),
        pytest.param(in_ledger(repeat_request), "requests", id="repeated request"),
        pytest.param(in_ledger(stray_request), "requests counts", id="stray request"),
        pytest.param(in_ledger(other_block), "requests", id="options"),
        pytest.param(in_ledger(other_code), "ledgers", id="code"),
        pytest.param(in_ledger(other_prompt), "requests", id="prompt of one request"),
        pytest.param(in_ledger(other_model), "ledgers", id="model"),
        pytest.param(in_ledger(other_setting), "ledgers", id="setting"),
        pytest.param(in_journal(other_order), "plan", id="order"),
        pytest.param(in_journal(unordered), "journal", id="unblinded before the end"),
        pytest.param(drop_end, "", id="register cut"),
        pytest.param(other_register, "register", id="register"),
        pytest.param(report_figure, "figures", id="figure"),
        pytest.param(
            in_text("report/report.txt", "Primary result: ", "Primary result: not "),
            "figures",
            id="text of the report",
        ),
        pytest.param(report_exclusions, "figures", id="exclusions"),
    ],
)
def test_manipulations_are_visible(
    bundle: Path, manipulate: Callable[[Path], None], claims: str
) -> None:
    manipulate(bundle)
    # The digests of the bag tell it, and after them the claims, when the bag is made anew.
    assert list(problems_of(bundle))
    rebag(bundle)
    assert not list(problems_of(bundle))
    checks = verify_bundle(bundle)
    for name in claims.split():
        assert checks.status(name) == "fails", checks.as_data()
    if not claims:
        assert checks.status("register") == "cannot be said"
    assert checks.as_data()["verdict"] in ("fails", "cannot be said")


@pytest.mark.parametrize("missing", ["journal.jsonl", "register.jsonl", "seal.json", "ledgers"])
def test_missing_parts_fail_and_raise_nothing(bundle: Path, missing: str) -> None:
    path = bundle / "data" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    rebag(bundle)
    assert verify_bundle(bundle).fails


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("journal.jsonl", b"\xff\xfe"),
        ("journal.jsonl", b""),
        ("journal.jsonl", b'{"kind":"session","n":0,"prev":"0","seal":null}\n'),
        ("register.jsonl", b"{}\n"),
        ("seal.json", b"[]"),
        ("report/report.json", b"[" * 100_000),
        ("report/report.json", b'{"figures": 3}'),
        ("PROTOCOL.yaml", b"protocol: 1\n"),
    ],
)
def test_nonsense_fails_and_raises_nothing(bundle: Path, name: str, content: bytes) -> None:
    (bundle / "data" / name).write_bytes(content)
    rebag(bundle)
    assert verify_bundle(bundle).fails


def test_what_is_no_bundle_is_refused(tmp_path: Path, finished_study: Study) -> None:
    with pytest.raises(BagError, match=r"no bagit\.txt"):
        verify_bundle(tmp_path)
    with pytest.raises(BagError, match="cannot be made"):
        make_bundle(finished_study, tmp_path)


def test_half_a_bundle_is_none(
    finished_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BagError, match="is in the study"):
        make_bundle(finished_study, finished_study.report / "bundle")

    def full(directory: Path, info: dict[str, str]) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(making, "finish_bag", full)
        with pytest.raises(BagError, match="No space"):
            make_bundle(finished_study, tmp_path / "new")
    make_bundle(finished_study, tmp_path / "new")


def test_a_report_says_what_the_disk_refuses(finished_study: Study) -> None:
    shutil.rmtree(finished_study.report)
    finished_study.report.write_text("in the way")
    with pytest.raises(StudyError, match="cannot be written"):
        write_report(finished_study)


def test_a_study_that_never_began_has_no_ledgers_to_fail(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study()
    abort_study(study, "the device broke")
    unblind(study)
    make_bundle(study, tmp_path / "bundle")
    checks = verify_bundle(tmp_path / "bundle")
    assert not checks.fails, checks.as_data()


def test_open_studies_have_no_bundle(make_study: Callable[..., Study], tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="not unblinded"):
        make_bundle(make_study(), tmp_path / "bundle")


def test_bags_know_every_fault(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    (bag / "data").mkdir(parents=True)
    (bag / "data" / "a.txt").write_text("a")
    (bag / "data" / "b.txt").write_text("b")
    finish_bag(bag, {"Contact-Name": "Nobody"})
    assert not list(problems_of(bag))
    assert digest_of(bag / "data" / "a.txt") == hashlib.sha256(b"a").hexdigest()
    assert "Payload-Oxum: 2.2\n" in (bag / "bag-info.txt").read_text()

    (bag / "data" / "a.txt").write_text("c")
    (bag / "data" / "b.txt").rename(bag / "data" / "c.txt")
    told = "\n".join(problems_of(bag))
    assert "data/a.txt is not the file that was bagged" in told
    assert "data/b.txt is missing" in told
    assert "data/c.txt is in no manifest" in told

    (bag / MANIFEST).write_text(f"{'0' * 64}  ../../etc/passwd\n")
    assert any("no digest and name" in problem for problem in problems_of(bag))
    (bag / MANIFEST).unlink()
    assert f"{MANIFEST} is missing" in list(problems_of(bag))
    (bag / "bagit.txt").write_text("BagIt-Version: 0.9\n")
    assert any("BagIt 1.0" in problem for problem in problems_of(bag))


def test_links_lead_out_of_no_bag(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    (bag / "data").mkdir(parents=True)
    (bag / "data" / "link").symlink_to("/etc/hostname")
    with pytest.raises(BagError, match="plain file"):
        finish_bag(bag, {})


def test_claims_count_what_they_do_not_list() -> None:
    checks = Checks()
    for number in range(25):
        checks.fail("bag", f"fault {number}")
    assert checks.fails
    (bag, *_) = checks.as_data()["claims"]
    assert bag["failed"] == 25
    assert len(bag["failures"]) == 20


def test_a_bundle_without_text_verifies_and_holds_none(
    finished_study: Study, tmp_path: Path
) -> None:
    make_bundle(finished_study, tmp_path / "silent", text=False)
    checks = verify_bundle(tmp_path / "silent")
    assert not checks.fails, checks.as_data()
    # No digest covers what is left of lines without text, so it may have been changed.
    for name in ("requests", "counts", "stopping", "figures"):
        assert checks.status(name) == "cannot be said"
    # Whether prompts are what was sealed cannot be said without them.
    assert checks.status("seal") == "cannot be said"
    payload = tmp_path / "silent" / "data"
    assert not list(payload.rglob("*.prompts.jsonl"))
    assert not (payload / "prompts").exists()
    (path,) = (payload / "ledgers").glob("*.jsonl")
    assert b"token_id" not in path.read_bytes()


def test_files_that_settings_name_go_along_and_are_sealed(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    directory = tmp_path / "lab" / "study"
    directory.mkdir(parents=True)
    series = LatencySeries.of(256, [1_000])
    profile = LatencyProfile(source="device", sizes=(series,)).model_dump_json()
    (directory / "device.json").write_text(profile)
    study = make_study(
        arms=[
            {"name": "biased", "source": "sham", "block_bytes": 256, "sham": True},
            {"name": "control", "source": "system", "block_bytes": 256},
        ],
        environment={"QR_SHAM_PROFILE": "device.json", "QR_MAX_KS_DISTANCE": 0.02},
    )
    conduct(study, Conduct())
    unblind(study)
    make_bundle(study, tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").status("seal") == "cannot be said"
    (tmp_path / "bundle" / "data" / "device.json").write_text(profile.replace("1000", "2000"))
    rebag(tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").status("seal") == "fails"


def test_a_ledger_that_ends_with_a_token_has_the_same_head_without_text(
    finished_study: Study, tmp_path: Path
) -> None:
    (path,) = ledgers_in(finished_study.ledgers)
    lines = path.read_bytes().splitlines(keepends=True)
    token = next(n for n, line in enumerate(lines) if b'"kind":"token"' in line)
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"".join(lines[: token + 1]))
    silent = tmp_path / "silent.jsonl"
    silent.write_bytes(
        b"".join(line + b"\n" for line in redact(each[:-1] for each in lines[: token + 1]))
    )
    assert silent.read_bytes() != cut.read_bytes()
    assert head_in(silent) == head_in(cut)
    assert head_in(cut, token) != head_in(cut)


def test_a_source_that_was_away_is_no_manipulation(
    make_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"QR_MAX_KS_DISTANCE": 0.02, "QR_FALLBACK_MODE": "end_request"}
    study = make_study(environment=away)
    urandom, draws = os.urandom, 0

    def failing_for_a_while(size: int) -> bytes:
        nonlocal draws
        draws += size >= 256
        if size >= 256 and 4 <= draws <= 6:
            raise OSError("away")
        return urandom(size)

    monkeypatch.setattr(os, "urandom", failing_for_a_while)
    assert conduct(study, Conduct())
    monkeypatch.setattr(os, "urandom", urandom)
    (path,) = ledgers_in(study.ledgers)
    assert b'{"kind":"forced"' in path.read_bytes()
    unblind(study)
    make_bundle(study, tmp_path / "bundle")
    checks = verify_bundle(tmp_path / "bundle")
    assert not checks.fails, checks.as_data()
    assert checks.status("counts") == "cannot be said"
    # Without the line that says why, an answer is too short.
    data = path.read_bytes().replace(b'{"kind":"forced"', b'{"kind":"forcex"')
    (tmp_path / "bundle" / "data" / "ledgers" / path.name).write_bytes(data)
    told = str(verify_bundle(tmp_path / "bundle").as_data())
    assert "and 8 were planned" in told
