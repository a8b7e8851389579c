# SPDX-License-Identifier: Apache-2.0
"""What a seal fixes, and what becomes of attempts to change it: refused, or visible."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qr_sampler.errors import ConfigError
from qr_sampler.records.code_digest import code_digest
from qr_sampler_lab.anchors.drand import Round
from qr_sampler_lab.anchors.fetching import AnchorError
from qr_sampler_lab.experiments import beacon, comparing, environment
from qr_sampler_lab.experiments.blinding import StudyKey, commitment_of
from qr_sampler_lab.experiments.comparing import differences, refuse_differences
from qr_sampler_lab.experiments.ending import abort_study, enter_end, finish_study
from qr_sampler_lab.experiments.files.errors import RecordError, StudyError
from qr_sampler_lab.experiments.files.register import LAB_VARIABLE, register_of
from qr_sampler_lab.experiments.ordering import plan_of, settle_order
from qr_sampler_lab.experiments.sealing import seal_study
from qr_sampler_lab.experiments.status import status_of
from qr_sampler_lab.experiments.study import Study

LEDGER_PAGE = Path(__file__).resolve().parents[3] / "docs" / "ledger.md"

TEXT = """
protocol: 1
name: {name}
title: A simulated device against a control
kind: pilot
hypotheses: [The mean statistic of the device differs from that of the control.]
model: {{path: ../model}}
environment: {{QR_FALLBACK_MODE: end_request}}
arms:
  - {{name: device, source: mock_uniform, block_bytes: 1024, amplifier: bit_zscore}}
  - {{name: control, source: system, block_bytes: 1024, amplifier: bit_zscore}}
prompts: [{{file: prompts/a.txt}}]
design: {{blocks: 10, tokens_per_request: 20, order: {order}}}
primary: {{contrast: {{device: 1, control: -1}}, alpha: 0.05, smallest_effect: 0.1}}
"""


@pytest.fixture(autouse=True)
def laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a directory with a model, which is the laboratory of the studies in it."""
    monkeypatch.delenv(LAB_VARIABLE, raising=False)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    return tmp_path


@pytest.fixture(autouse=True, scope="module")
def digests_once() -> Iterator[None]:
    """Reads installed code once: no test changes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "code_digest", functools.cache(code_digest))
        yield


def draft(laboratory: Path, name: str = "study", order: str = "secret") -> Study:
    """Returns a study that is not sealed."""
    (laboratory / name / "prompts").mkdir(parents=True)
    (laboratory / name / "prompts" / "a.txt").write_text("Once upon a time")
    (laboratory / name / "PROTOCOL.yaml").write_text(TEXT.format(name=name, order=order))
    return Study(laboratory / name)


def sealed(laboratory: Path, name: str = "study") -> Study:
    """Returns a study that is sealed."""
    study = draft(laboratory, name)
    seal_study(study, witness=None)
    return again(study)


def again(study: Study) -> Study:
    """Returns the study as another process would find it."""
    return Study(study.directory)


def begun(laboratory: Path) -> Study:
    """Returns a study that has begun."""
    study = sealed(laboratory)
    settle_order(study)
    study.journal.begun()
    return study


def test_the_digest_of_a_seal_is_that_of_its_file(laboratory: Path) -> None:
    study = draft(laboratory)
    found = seal_study(study, witness=None)
    assert hashlib.sha256(study.seal_path.read_bytes()).hexdigest() == found.digest
    values = json.loads(study.seal_path.read_bytes())
    assert values["files"]["prompts/a.txt"] == hashlib.sha256(b"Once upon a time").hexdigest()
    assert values["protocol"]["design"]["blocks"] == 10
    assert values["tokens_per_arm"] == {"device": 200, "control": 200}
    assert values["model"]["files"].keys() == {"config.json", "model.safetensors"}
    assert values["code"].keys() >= {"qr-sampler-lab", "qr-sampler-core", "qr-entropy-sources"}
    assert values["witness"] is None
    assert values["register_before"] == {"lines": 0, "head": "0" * 64}
    assert study.journal.standing().seal == found.digest


def test_the_secrets_are_the_owners_and_not_in_the_seal(laboratory: Path) -> None:
    study = sealed(laboratory)
    assert stat.S_IMODE(study.key_path.stat().st_mode) == 0o600
    key, seal = study.key, study.sealed.seal
    assert seal.aliases == commitment_of(key.alias_key)
    assert seal.order.commitment == commitment_of(key.order_secret)
    told = study.seal_path.read_text() + study.journal.path.read_text()
    assert key.alias_key.hex() not in told
    assert key.order_secret.hex() not in told
    assert key.alias_key.hex() not in repr(key)


def test_journal_and_register_are_chains_that_the_ledgers_page_checks(laboratory: Path) -> None:
    study = begun(laboratory)
    study.journal.mark("the lights went out")
    with study.journal.path.open("ab") as file:
        file.write(b'{"kind":"mark","n":4,"pr')
    study.journal.session_begun(0)
    study.journal.session_ended(0, requests={"arm-1": 2}, tokens={"arm-1": 40})
    abort_study(study, "power failure")
    program = re.search(r"```python\n(.*?)```", LEDGER_PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert program is not None
    for path, lines in ((study.journal.path, 8), (study.register.path, 3)):
        found = subprocess.run(
            [sys.executable, "-c", program[1], str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.startswith(f"{lines} lines, head ")


def test_a_study_is_sealed_once(laboratory: Path) -> None:
    study = sealed(laboratory)
    before = study.seal_path.read_bytes()
    with pytest.raises(StudyError, match="sealed already and unchanged"):
        seal_study(again(study), witness=None)
    assert study.seal_path.read_bytes() == before
    assert len(study.register.studies()) == 1


def rewrite(study: Study, old: str, new: str) -> None:
    text = study.protocol_path.read_text()
    assert old in text
    study.protocol_path.write_text(text.replace(old, new))


def exchange_key(study: Study) -> None:
    study.key_path.unlink()
    StudyKey.fresh().write(study.key_path)


CHANGES: dict[str, tuple[Callable[[Study], object], str]] = {
    "N": (
        lambda study: rewrite(study, "blocks: 10", "blocks: 11"),
        "design.blocks is 11 and was 10",
    ),
    "N of arms": (lambda study: rewrite(study, "blocks: 10", "blocks: 11"), "N is .*220"),
    "endpoint": (lambda study: rewrite(study, "alpha: 0.05", "alpha: 0.1"), "primary.alpha is 0.1"),
    "exclusions": (
        lambda study: study.protocol_path.write_text(
            study.protocol_path.read_text() + "exclusions: {fallback: false}\n"
        ),
        "exclusions.fallback is False and was True",
    ),
    "arm": (lambda study: rewrite(study, "mock_uniform", "system"), "arms.0.source is 'system'"),
    "comment": (
        lambda study: rewrite(study, "kind: pilot", "kind: pilot # !"),
        "PROTOCOL.yaml was",
    ),
    "no protocol": (lambda study: rewrite(study, "kind:", "sort:"), "unknown key"),
    "prompt": (
        lambda study: (study.directory / "prompts" / "a.txt").write_text("Twice"),
        "prompts/a.txt was changed",
    ),
    "no prompt": (lambda study: (study.directory / "prompts" / "a.txt").unlink(), "cannot be read"),
    "weights": (
        lambda study: (study.model_path / "model.safetensors").write_bytes(b"other"),
        "file of the model model.safetensors",
    ),
    "more weights": (
        lambda study: (study.model_path / "adapter.safetensors").write_bytes(b"other"),
        "has the file adapter.safetensors",
    ),
    "no model": (lambda study: shutil.rmtree(study.model_path), "no directory"),
    "key": (
        lambda study: exchange_key(study),
        "not the key that the seal commits to",
    ),
    "broken key": (lambda study: study.key_path.write_text("{}"), "no key of a study"),
    "seal": (
        lambda study: study.seal_path.write_text(
            study.seal_path.read_text().replace('"pilot"', '"formal"')
        ),
        "the seal or the journal was exchanged",
    ),
}


@pytest.mark.heavy
@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=list(CHANGES))
def test_changes_after_the_seal_are_refused(
    laboratory: Path, change: Callable[[Study], object], reason: str
) -> None:
    study = sealed(laboratory)
    assert differences(again(study)) == []
    change(study)
    with pytest.raises(StudyError, match=reason):
        refuse_differences(again(study))
    with pytest.raises(StudyError, match="sealed already; since then"):
        seal_study(again(study), witness=None)
    found = status_of(again(study), model=True)
    assert any(re.search(reason, fault) for fault in found.faults)


def test_other_code_is_refused(laboratory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = sealed(laboratory)
    monkeypatch.setattr(comparing, "installed_code", lambda protocol: {"qr-sampler-lab": "00"})
    monkeypatch.setattr(comparing, "versions_in_use", lambda protocol: {"python": "2.7"})
    with pytest.raises(StudyError, match="the code of qr-sampler-lab is 00") as caught:
        refuse_differences(study)
    assert "the version of python is 2.7" in str(caught.value)
    assert differences(study, code=False) == []


def test_a_seal_that_is_no_seal(laboratory: Path) -> None:
    study = sealed(laboratory)
    text = study.seal_path.read_text()
    for broken, reason in (
        (text + " ", "bytes are not those"),
        (text.replace('"name"', '"nom"', 1), "no seal"),
        ("[", "no seal"),
    ):
        study.seal_path.write_text(broken)
        with pytest.raises(StudyError, match=reason):
            _ = again(study).sealed
        assert status_of(again(study)).faults


def test_the_order_cannot_be_settled_twice_nor_by_another_secret(laboratory: Path) -> None:
    study = sealed(laboratory)
    with pytest.raises(StudyError, match="not settled"):
        plan_of(study)
    with pytest.raises(StudyError, match="order of the arms is not known"):
        study.journal.begun()
    settle_order(study)
    first = plan_of(study)
    assert plan_of(again(study)) == first
    with pytest.raises(StudyError, match="already"):
        settle_order(study)
    study.key_path.unlink()
    StudyKey.fresh().write(study.key_path)
    with pytest.raises(StudyError, match="not the key that the seal commits to"):
        plan_of(again(study))


SIGNATURE = (
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b1957"
    "6350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
)
"""Of round 1000 of drand's quicknet."""

ROUND = {
    "round": 1_000,
    "signature": SIGNATURE,
    "randomness": hashlib.sha256(bytes.fromhex(SIGNATURE)).hexdigest(),
}


def test_an_order_of_drand_is_that_of_the_round_that_the_seal_names(
    laboratory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qr_sampler_lab.experiments.sealing.round_after", lambda time_ns: 1_000)
    study = draft(laboratory, order="drand")
    seal_study(study, witness=ROUND)
    assert study.sealed.seal.witness == ROUND
    assert (study.sealed.seal.order.round, study.sealed.seal.order.commitment) == (1_000, None)
    answers = [{**ROUND, "round": 999}, ROUND]
    monkeypatch.setattr(
        "qr_sampler_lab.experiments.ordering.fetched_round", lambda number, file: answers.pop(0)
    )
    with pytest.raises(StudyError, match="names round 1000 of drand, and this is 999"):
        settle_order(study)
    settle_order(study)
    assert len(plan_of(study)) == 10


def test_a_round_that_was_recorded_wrongly_orders_nothing(
    laboratory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qr_sampler_lab.experiments.sealing.round_after", lambda time_ns: 1_000)
    for name, line, reason in (
        ("a", {**ROUND, "signature": "ac" * 48}, "digest of its signature"),
        ("b", {**ROUND, "round": 7}, "settled by round 7"),
    ):
        study = draft(laboratory, name, order="drand")
        seal_study(study, witness=None)
        study.journal.ordered("drand", **line)
        with pytest.raises(StudyError, match=reason):
            plan_of(study)
    study = draft(laboratory, "c", order="drand")
    seal_study(study, witness=None)
    study.journal.ordered("secret", commitment="0")
    with pytest.raises(StudyError, match="settled by secret, not drand"):
        plan_of(study)


def test_rounds_come_from_a_file_or_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if importlib.util.find_spec("py_ecc") is None:
        pytest.skip("py-ecc is in the extra anchors")
    (tmp_path / "round.json").write_text(json.dumps({"round": 1_000, "signature": SIGNATURE}))
    found = beacon.fetched_round(None, tmp_path / "round.json")
    digest = hashlib.sha256(bytes.fromhex(SIGNATURE)).hexdigest()
    assert found == {"round": 1_000, "signature": SIGNATURE, "randomness": digest}
    (tmp_path / "round.json").write_text(json.dumps({"round": 1_001, "signature": SIGNATURE}))
    with pytest.raises(AnchorError):
        beacon.fetched_round(1_001, tmp_path / "round.json")
    monkeypatch.setattr(beacon, "latest_round", lambda: Round(1, "aa"))
    monkeypatch.setattr(beacon, "round_of", lambda number: Round(number, "aa"))
    assert beacon.fetched_round(None)["round"] == 1
    assert beacon.fetched_round(7)["round"] == 7


def test_an_aborted_study_stays_in_the_register(laboratory: Path) -> None:
    study = begun(laboratory)
    abort_study(study, "the device broke")
    (known,) = study.register.studies()
    assert known.end is not None
    assert (known.end.kind, known.end.values["reason"]) == ("aborted", "the device broke")
    with pytest.raises(StudyError, match="aborted"):
        abort_study(study, "again")
    with pytest.raises(StudyError, match="aborted"):
        finish_study(study)
    with pytest.raises(StudyError, match="aborted"):
        study.journal.session_begun(0)
    shutil.rmtree(study.directory)
    (found,) = register_of(study.directory).studies()
    assert found.end is not None
    assert found.end.kind == "aborted"
    other = sealed(laboratory, "other")
    (fault,) = status_of(other).faults
    assert "study (aborted) is not at" in fault


def test_a_finished_study(laboratory: Path) -> None:
    study = sealed(laboratory)
    with pytest.raises(StudyError, match="has not begun"):
        finish_study(study)
    settle_order(study)
    study.journal.begun()
    finish_study(study)
    assert status_of(again(study)).state == "finished"
    assert status_of(again(study)).faults == []


def test_an_end_that_a_crash_kept_out_of_the_register_is_entered(laboratory: Path) -> None:
    study = begun(laboratory)
    with pytest.raises(StudyError, match="is open"):
        enter_end(study)
    study.journal.aborted("no power")
    (fault,) = status_of(again(study)).faults
    assert "the register does not know it yet" in fault
    enter_end(study)
    assert status_of(again(study)).faults == []
    with pytest.raises(StudyError, match="has the study as aborted"):
        enter_end(study)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_a_deleted_line_of_the_journal_is_found(laboratory: Path) -> None:
    study = begun(laboratory)
    study.journal.mark("one")
    study.journal.mark("two")
    lines = lines_of(study.journal.path)
    for place in range(len(lines) - 1):
        study.journal.path.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
        found = status_of(again(study))
        assert any("does not follow" in fault for fault in found.faults), place
        with pytest.raises(RecordError, match="does not follow"):
            again(study).journal.mark("three")
    study.journal.path.write_bytes(b"".join(lines).replace(b'"one"', b'"One"'))
    assert status_of(again(study)).state == "broken"


def test_a_journal_that_lost_its_end_is_found_through_the_register(laboratory: Path) -> None:
    study = begun(laboratory)
    abort_study(study, "results did not suit")
    lines = lines_of(study.journal.path)
    study.journal.path.write_bytes(b"".join(lines[:-1]))
    faults = status_of(again(study)).faults
    assert any("the register says aborted, and the journal open" in fault for fault in faults)
    other = sealed(laboratory, "other")
    assert any("lines of the journal are missing" in fault for fault in status_of(other).faults)


def test_a_seal_and_journal_made_anew_are_found_through_the_register(laboratory: Path) -> None:
    study = sealed(laboratory)
    first = study.sealed.digest
    for path in (study.seal_path, study.journal.path, study.key_path):
        path.unlink()
    (fault,) = status_of(again(study)).faults
    assert f"sealed as {first}" in fault
    seal_study(again(study), witness=None)
    faults = status_of(again(study)).faults
    assert any("is not the study study that the register has" in fault for fault in faults)
    assert [known.end for known in study.register.studies()] == [None, None]


def test_a_register_that_was_cut_or_copied_back_is_found(laboratory: Path) -> None:
    first = sealed(laboratory, "first")
    older = first.register.path.read_bytes()
    second = sealed(laboratory, "second")
    second.register.path.write_bytes(older)
    faults = status_of(again(second)).faults
    assert any("it was cut, or an older one was copied back" in fault for fault in faults)
    # The first study finds it by looking at what lies beside the register.
    (fault,) = status_of(again(first)).faults
    assert "second is sealed, and the register" in fault
    with pytest.raises(StudyError, match="Bring back the register"):
        abort_study(second, "hide it")


def test_what_no_file_of_the_laboratory_shows(laboratory: Path) -> None:
    """An older register without the later study: only a head that somebody has kept tells."""
    first = sealed(laboratory, "first")
    older = first.register.path.read_bytes()
    second = sealed(laboratory, "second")
    head = second.register.entries()[-1].head
    shutil.rmtree(second.directory)
    first.register.path.write_bytes(older)
    assert status_of(again(first)).faults == []
    assert head not in {entry.head for entry in first.register.entries()}


def test_a_register_that_is_gone_edited_or_another_one(
    laboratory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sealed(laboratory)
    register = study.register.path
    whole = register.read_bytes()
    register.write_bytes(whole.replace(b'"directory":"study"', b'"directory":"stucy"'))
    # The last line is covered by the journal's receipt.
    assert any("made anew" in fault for fault in status_of(again(study)).faults)
    register.write_bytes(whole.replace(b'"version":1', b'"version":2'))
    assert any("does not follow" in fault for fault in status_of(again(study)).faults)
    register.unlink()
    assert any("is gone" in fault for fault in status_of(again(study)).faults)
    register.write_bytes(whole)
    assert status_of(again(study)).faults == []
    monkeypatch.setenv(LAB_VARIABLE, str(tmp_path / "elsewhere"))
    assert any("is gone" in fault for fault in status_of(again(study)).faults)


def test_a_laboratory_may_be_elsewhere(laboratory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAB_VARIABLE, str(laboratory / "lab"))
    study = sealed(laboratory)
    (known,) = study.register.studies()
    assert known.directory == str(study.directory.resolve())
    assert study.register.path == laboratory / "lab" / "register.jsonl"
    assert status_of(study).faults == []


SEALING = """
import sys
from pathlib import Path
from qr_sampler_lab.experiments.sealing import seal_study
from qr_sampler_lab.experiments.study import Study
study = Study(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(seal_study(study, witness=None).digest)
"""


@pytest.mark.heavy
def test_of_two_processes_one_seals(laboratory: Path) -> None:
    study = draft(laboratory)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SEALING, str(study.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60) for process in processes]
    digests = [out.strip() for out, _ in told if out]
    assert digests == [study.sealed.digest]
    assert sum("sealed already and unchanged" in error for _, error in told) == 1
    assert [known.seal for known in study.register.studies()] == digests


def test_many_at_once_all_enter_the_register(laboratory: Path) -> None:
    studies = [draft(laboratory, f"study-{n}") for n in range(4)]
    with ThreadPoolExecutor(8) as pool:
        attempts = [pool.submit(seal_study, again(s), witness=None) for s in studies * 2]
    errors = [attempt.exception() for attempt in attempts]
    assert sum(error is None for error in errors) == 4
    assert sum("sealed already and unchanged" in str(error) for error in errors) == 4
    registered = {known.seal for known in studies[0].register.studies()}
    assert registered == {study.sealed.digest for study in studies}
    assert [status_of(study).faults for study in studies] == [[]] * 4


def test_a_sealing_that_was_interrupted_is_completed(
    laboratory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = draft(laboratory)
    monkeypatch.setenv(LAB_VARIABLE, str(study.protocol_path))  # No directory can be there.
    with pytest.raises((StudyError, RecordError, OSError)):
        seal_study(study, witness=None)
    written = study.seal_path.read_bytes()
    monkeypatch.delenv(LAB_VARIABLE)
    assert status_of(again(study)).state == "draft"
    assert any("seal.json is there" in fault for fault in status_of(again(study)).faults)
    found = seal_study(again(study), witness=None)
    assert hashlib.sha256(written).hexdigest() == found.digest
    # So is one that had entered the register.
    study.journal.path.unlink()
    assert seal_study(again(study), witness=None).digest == found.digest
    assert len(study.register.studies()) == 1
    assert status_of(again(study)).faults == []


REFUSED = {
    "option": ("block_bytes: 1024, amplifier: bit_zscore}", "block_bytes: 0}", "block_bytes"),
    "parameter": ("amplifier: bit_zscore}", "options: {qr_top_p: 7}}", "arm 'device': qr_top_p=7"),
    "unknown option": ("amplifier: bit_zscore}", "options: {qr_topp: 1}}", "did you mean qr_top_p"),
    "source": ("mock_uniform", "mock_uniformm", "mock_uniformm"),
    "amplifier": ("bit_zscore", "bit_zscor", "bit_zscor"),
    "setting": ("end_request", "end_request, QR_MAX_KS_DISTANCE: 7", "QR_MAX_KS_DISTANCE='7'"),
    "digest": ("prompts/a.txt", "prompts/a.txt, sha256: " + "0" * 64, "bring back the right file"),
    "prompt": ("prompts/a.txt", "prompts/b.txt", "cannot be read"),
    "model": ("../model", "../modell", "no directory"),
    "manifest": ("../model", "../model, manifest_sha256: " + "0" * 64, "manifest"),
    "baseline": ("end_request", "end_request, QR_BASELINE_FILE: base.json", "base.json"),
}


@pytest.mark.parametrize(("old", "new", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_what_the_engine_would_refuse_is_not_sealed(
    laboratory: Path, old: str, new: str, reason: str
) -> None:
    study = draft(laboratory)
    rewrite(study, old, new)
    with pytest.raises((ConfigError, StudyError), match=reason):
        seal_study(study, witness=None)
    assert not study.seal_path.exists()
    assert study.register.entries() == []


def test_all_distributions_of_the_project_are_sealed() -> None:
    packages = Path(__file__).resolve().parents[2]
    if not (packages / "qr-sampler-core").is_dir():
        pytest.skip("the other packages are in the repository, not in this archive")
    assert sorted(environment.OUR_DISTRIBUTIONS) == sorted(
        p.parent.name for p in packages.glob("*/pyproject.toml")
    )


def test_no_study_without_a_protocol(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="experiment new"):
        Study(tmp_path)


def test_a_study_that_is_not_sealed_has_no_seal(laboratory: Path) -> None:
    study = draft(laboratory)
    with pytest.raises(StudyError, match="experiment seal"):
        _ = study.sealed
    assert status_of(study).state == "draft"
    (study.directory / "prompts" / "a.txt").write_bytes(b"\xff")
    with pytest.raises(StudyError, match="UTF-8"):
        study.prompt("prompts/a.txt")
    assert study.report == study.directory / "report"
