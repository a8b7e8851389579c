# SPDX-License-Identifier: Apache-2.0
"""Studies are carried out as sealed, once, and survive whatever happens to the process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qr_sampler.errors import ConfigError
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import read_ledger
from qr_sampler_lab.experiments.bundle.making import make_bundle
from qr_sampler_lab.experiments.bundle.verifying import verify_bundle
from qr_sampler_lab.experiments.ending import abort_study
from qr_sampler_lab.experiments.files.errors import RecordError, StudyError
from qr_sampler_lab.experiments.files.locking import locked_directory
from qr_sampler_lab.experiments.results.report import write_report
from qr_sampler_lab.experiments.results.revealed import reveal, unblind
from qr_sampler_lab.experiments.running import engines
from qr_sampler_lab.experiments.running.conduct import Conduct, assignment_of, conduct
from qr_sampler_lab.experiments.running.engines import Answer, Question, ToyEngine
from qr_sampler_lab.experiments.study import Study

MakeStudy = Callable[..., Study]
HOW = Conduct()
RESUME = Conduct(resume=True)


def lines_of(study: Study, kind: str) -> list[dict[str, Any]]:
    return [
        line
        for path in ledgers_in(study.ledgers)
        for line in read_ledger(path)
        if line["kind"] == kind
    ]


def test_the_plan_is_what_is_made(make_study: MakeStudy) -> None:
    study = make_study()
    shown: list[tuple[int, int]] = []
    assert conduct(study, Conduct(on_progress=lambda *n: shown.append(n)))
    planned = [request for session in assignment_of(study).sessions for request in session.requests]
    made = lines_of(study, "sequence")
    assert Counter((s["request_key"], s["condition"], s["trial"]) for s in made) == Counter(
        (request.request_key, request.alias, str(request.session)) for request in planned
    )
    tokens = Counter(token["request_key"] for token in lines_of(study, "token"))
    assert tokens == {request.request_key: 8 for request in planned}
    standing = study.journal.standing()
    assert (standing.ended, standing.sessions_begun, standing.sessions_ended) == ("finished", 6, 6)
    known = study.register.study(study.sealed.digest)
    assert known is not None
    assert known.end is not None
    assert known.end.kind == "finished"
    assert shown[-1] == (12, 12)


def test_ledgers_begin_with_the_seal_and_are_required(make_study: MakeStudy) -> None:
    study = make_study()
    conduct(study, HOW)
    (genesis,) = lines_of(study, "genesis")
    assert genesis["prev"] == genesis["seal"] == study.sealed.digest
    assert genesis["settings"]["ledger_required"]
    assert genesis["settings"]["ledger_prompts"]
    assert {source["name"] for source in genesis["sources"]} == {"mock_uniform", "system"}


def test_arms_share_one_engine_and_its_batches(make_study: MakeStudy) -> None:
    study = make_study()
    conduct(study, HOW)
    assert len(ledgers_in(study.ledgers)) == 1
    sources = [draw["source"] for draw in lines_of(study, "draw")]
    # Both arms draw in every step.
    assert sorted(sources) == ["mock_uniform"] * 8 + ["system"] * 8


def test_a_study_is_run_once(make_study: MakeStudy) -> None:
    study = make_study()
    with pytest.raises(StudyError, match="has not begun"):
        conduct(study, RESUME)
    conduct(study, HOW)
    with pytest.raises(StudyError, match="finished; nothing is left"):
        conduct(study, HOW)


def test_one_process_at_a_time_runs_a_study(make_study: MakeStudy) -> None:
    study = make_study()
    study.ledgers.mkdir()
    with locked_directory(study.ledgers), pytest.raises(RecordError, match="another process"):
        conduct(study, HOW)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("PROTOCOL.yaml", "blocks: 6", "blocks: 7", "N is"),
        ("PROTOCOL.yaml", "source: system", "source: timing_noise", "arms"),
        ("PROTOCOL.yaml", "127.6", "127.9", "environment"),
        ("PROTOCOL.yaml", "alpha: 0.01", "alpha: 0.05", "primary"),
        ("prompts/a.txt", "Prompt", "prompt", "prompts/a.txt"),
        ("model/toy-model.json", "{}", '{"other": 1}', "toy-model.json"),
        ("seal.json", '"name": "small"', '"name": "smaller"', "seal"),
    ],
)
def test_what_differs_from_the_seal_is_refused_by_name(
    make_study: MakeStudy, file: str, old: str, new: str, named: str
) -> None:
    study = make_study()
    _edit(study.directory / file, old, new)
    with pytest.raises((StudyError, ConfigError), match=named):
        conduct(Study(study.directory), HOW)
    assert not study.journal.standing().begun


def test_other_code_is_refused(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study()
    from qr_sampler_lab.experiments import comparing

    monkeypatch.setattr(comparing, "installed_code", lambda protocol: {"qr-sampler-core": "f" * 64})
    with pytest.raises(StudyError, match="the code of qr-sampler-core"):
        conduct(study, HOW)


def test_stray_settings_are_refused(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = make_study()
    monkeypatch.setenv("QR_TOP_K", "5")
    monkeypatch.setenv("QR_GRPC_API_KEY", "secrets are in no protocol")
    monkeypatch.setenv("QR_LEDGER_SYNC_MS", "100")
    monkeypatch.setenv("QR_LEDGER_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(StudyError, match="QR_TOP_K: set in the environment"):
        conduct(study, HOW)
    monkeypatch.delenv("QR_TOP_K")
    (tmp_path / ".env").write_text("QR_TOP_K=5\n")
    monkeypatch.chdir(tmp_path)
    assert conduct(study, HOW)
    (genesis,) = lines_of(study, "genesis")
    assert genesis["settings"]["top_k"] == 0
    assert genesis["settings"]["ledger_sync_ms"] == 100
    assert not (tmp_path / "elsewhere").exists()


class Interrupted(ToyEngine):
    """Interrupts its process while it answers for the third time."""

    calls = 0

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        Interrupted.calls += 1
        if Interrupted.calls == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return super().answer(questions)


def test_an_interrupt_ends_the_session_and_leaves_the_rest(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    monkeypatch.setattr(engines, "ToyEngine", Interrupted)
    monkeypatch.setattr(Interrupted, "calls", 0)
    before = signal.getsignal(signal.SIGINT)
    assert not conduct(study, Conduct(at_once=2))
    assert signal.getsignal(signal.SIGINT) is before
    standing = study.journal.standing()
    assert (standing.sessions_begun, standing.sessions_ended, standing.ended) == (3, 3, "")
    with pytest.raises(StudyError, match="resume"):
        conduct(study, HOW)
    assert conduct(study, RESUME)
    assert Counter(s["request_key"] for s in lines_of(study, "sequence")).most_common(1)[0][1] == 1


class Failing(ToyEngine):
    """Fails after it has emitted tokens of the second batch."""

    calls = 0

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        answers = super().answer(questions)
        Failing.calls += 1
        if Failing.calls == 2:
            raise ConfigError("the device is on fire")
        return answers


def test_a_session_that_failed_counts_and_is_not_repeated(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = make_study()
    monkeypatch.setattr(engines, "ToyEngine", Failing)
    monkeypatch.setattr(Failing, "calls", 0)
    with pytest.raises(ConfigError, match="on fire"):
        conduct(study, Conduct(at_once=2))
    assert conduct(study, RESUME)
    standing = study.journal.standing()
    assert (standing.sessions_begun, standing.sessions_ended) == (6, 5)
    resumed = next(e.values for e in study.journal.entries() if e.kind == "resumed")
    assert resumed["interrupted"] == [1]
    unblind(study)
    report = write_report(study)
    # Its tokens count.
    assert report["figures"]["arms"]["biased"]["tokens"] == 6 * 8
    make_bundle(study, tmp_path / "bundle")
    assert not verify_bundle(tmp_path / "bundle").fails


@pytest.mark.heavy
def test_killed_at_random_it_goes_on_and_repeats_nothing(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(design={"blocks": 40, "tokens_per_request": 8})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["qr_sampler_lab.experiments.running.conduct"])
    script = Random(20261130)
    how = Conduct(at_once=2)
    for _ in range(3):
        size = _size(study)
        child = context.Process(target=conduct, args=(Study(study.directory), how))
        child.start()
        # From some bytes after the line that it begins with.
        wanted = size + script.randrange(400, 6_000)
        while child.is_alive() and _size(study) < wanted:
            time.sleep(0.0005)
        child.kill()
        child.join()
        how = RESUME if study.journal.standing().begun else how
    assert study.journal.standing().resumed >= 1
    if not study.journal.standing().ended:
        assert conduct(study, RESUME)
    standing = study.journal.standing()
    assert standing.sessions_begun == 40
    keys = Counter(s["request_key"] for s in lines_of(study, "sequence"))
    assert max(keys.values()) == 1
    unblind(study)
    write_report(study)
    make_bundle(study, tmp_path / "bundle")
    checks = verify_bundle(tmp_path / "bundle")
    assert not checks.fails, checks.as_data()


def _size(study: Study) -> int:
    return study.journal.path.stat().st_size


def test_sessions_of_one_arm_are_made_one_after_another(make_study: MakeStudy) -> None:
    arms = [
        {"name": "high", "source": "system", "block_bytes": 256, "intention": "HI"},
        {"name": "low", "source": "system", "block_bytes": 256, "intention": "LO"},
    ]
    study = make_study(
        arms=arms,
        environment={"QR_MAX_KS_DISTANCE": 0.02},
        design={
            "unit": "session",
            "blocks": 3,
            "requests_per_session": 4,
            "tokens_per_request": 4,
        },
        primary={"contrast": {"high": 1, "low": -1}, "alpha": 0.05, "smallest_effect": 0.5},
        schedule=[{"phase": "calibration", "arm": "low", "at": "before", "requests": 2}],
    )
    begun: list[int] = []
    conduct(
        study,
        Conduct(on_session=lambda session: begun.append(len(session.requests))),
    )
    assert begun == [2, 4, 4, 4, 4, 4, 4]
    states = [
        (e.values["session"], e.values["state"])
        for e in study.journal.entries()
        if e.kind == "session"
    ]
    assert states == [(n, state) for n in range(7) for state in ("begun", "ended")]
    unblind(study)
    figures = write_report(study)["figures"]
    # Calibrations are no part of the blocks.
    assert figures["arms"]["low"]["tokens"] == 3 * 4 * 4


E_VALUE: dict[str, Any] = {
    "environment": {"QR_MOCK_UNIFORM_MEAN": 132.0, "QR_MAX_KS_DISTANCE": 0.02},
    "design": {"blocks": 60, "tokens_per_request": 4},
    "primary": {"contrast": {"biased": 1, "control": -1}, "alpha": 0.01, "smallest_effect": 0.1},
    "stopping": {"rule": "e_value", "tau": 1.0},
}


def test_the_e_value_ends_a_study_and_nothing_else_does(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(**E_VALUE)
    assert conduct(study, HOW)
    finished = study.journal.entries()[-1]
    stopped = finished.values["stopped_after"]
    # The mean of a block's z is 2.7 here: the chance that 60 blocks do not suffice is below 1e-100.
    assert stopped is not None
    assert study.journal.standing().sessions_begun == stopped + 1
    assert "e_value" not in str(finished.values)
    unblind(study)
    primary = write_report(study)["figures"]["primary"]
    assert primary["found"]
    assert primary["p_value"] == primary["e_value"]["p_value"] <= 0.01
    assert primary["e_value"]["crossed_at"] == primary["e_value"]["blocks"] == stopped + 1
    make_bundle(study, tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").status("stopping") == "holds"


def test_an_e_value_without_effect_runs_to_the_maximum(make_study: MakeStudy) -> None:
    # By Ville's inequality a null study stops early with probability alpha at most.
    study = make_study(
        **{
            **E_VALUE,
            "environment": {"QR_MAX_KS_DISTANCE": 0.02},
            "design": {"blocks": 5, "tokens_per_request": 4},
            "primary": {**E_VALUE["primary"], "alpha": 1e-9},
        }
    )
    assert conduct(study, HOW)
    assert study.journal.standing().sessions_begun == 5
    assert study.journal.entries()[-1].values["stopped_after"] is None


def test_an_aborted_study_is_in_the_register_and_reports_what_it_is(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = make_study()
    monkeypatch.setattr(engines, "ToyEngine", Interrupted)
    monkeypatch.setattr(Interrupted, "calls", 1)
    conduct(study, Conduct(at_once=2))
    with pytest.raises(StudyError, match="open"):
        unblind(study)
    abort_study(study, "the device was warm")
    with pytest.raises(StudyError, match="aborted"):
        conduct(study, RESUME)
    known = study.register.study(study.sealed.digest)
    assert known is not None
    assert known.end is not None
    assert known.end.values["reason"] == "the device was warm"
    unblind(study)
    write_report(study)
    assert "Primary result (exploratory" in (study.report / "report.txt").read_text()
    make_bundle(study, tmp_path / "bundle")
    checks = verify_bundle(tmp_path / "bundle")
    assert checks.status("stopping") == "cannot be said"
    assert not checks.fails


def test_arms_become_known_once_and_only_at_the_end(make_study: MakeStudy) -> None:
    study = make_study()
    with pytest.raises(StudyError, match="not unblinded"):
        write_report(study)
    conduct(study, HOW)
    unblind(study)
    assert set(reveal(study).main_arms.values()) == {"biased", "control"}
    with pytest.raises(StudyError, match="happens once"):
        unblind(study)


def test_progress_and_journal_show_no_arm_and_no_result(make_study: MakeStudy) -> None:
    study = make_study()
    conduct(study, HOW)
    text = study.journal.path.read_text()
    for word in ("biased", "control", "mock_uniform", "statistic", "p_value", '"u"'):
        assert word not in text


def test_witnesses_are_asked_while_a_study_runs(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qr_sampler_lab.anchors import anchoring

    events: list[Any] = []

    class Recorded:
        def __init__(self, paths: Sequence[Path], **named: str | None) -> None:
            events.append((list(paths), named))

        def __enter__(self) -> None:
            events.append("begun")

        def __exit__(self, *raised: object) -> None:
            events.append("ended")

    monkeypatch.setattr(anchoring, "Anchoring", Recorded)
    study = make_study()
    assert conduct(study, Conduct(tsa="http://tsa", drand="http://drand"))
    named = {"tsa": "http://tsa", "drand": "http://drand", "deposit": None}
    assert events == [([study.ledgers], named), "begun", "ended"]


def test_without_the_extra_a_study_runs_with_one_warning(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from qr_sampler_cli.failures import MissingPackageError
    from qr_sampler_lab.anchors import anchoring

    def missing(*arguments: object, **named: object) -> None:
        raise MissingPackageError("httpx is not installed")

    monkeypatch.setattr(anchoring, "Anchoring", missing)
    assert conduct(make_study(), Conduct(drand="http://drand"))
    assert [record.getMessage() for record in caplog.records if "witness" in record.message] == [
        "no outside witness: httpx is not installed; --no-anchors says so without a warning"
    ]


def test_an_end_that_a_crash_kept_out_of_the_register_is_entered_later(
    make_study: MakeStudy,
) -> None:
    study = make_study()
    conduct(study, HOW)
    register = study.register.path
    lines = register.read_bytes().splitlines(keepends=True)
    register.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(StudyError, match="finished; nothing is left"):
        conduct(study, RESUME)
    known = study.register.study(study.sealed.digest)
    assert known is not None
    assert known.end is not None
