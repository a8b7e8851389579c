# SPDX-License-Identifier: Apache-2.0
"""What an engine says of itself, who may read it, and when it is called unhealthy."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler import ConfigError, FallbackEntropySource, Settings
from qr_sampler.host import EngineFacts, EngineStatus, SamplingSession
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_vllm import processor
from qr_sampler_vllm.front_end import checks
from qr_sampler_vllm.front_end.dropped_plugin import guard_model_runner_v1
from qr_sampler_vllm.processor import QRSamplerLogitsProcessor
from qr_sampler_vllm.runners.role import EngineRole
from qr_sampler_vllm.status import file as status_file
from qr_sampler_vllm.status import run_directory
from qr_sampler_vllm.status.endpoint import HEALTHY, status_document
from qr_sampler_vllm.status.file import REPEAT_S, StatusFile
from qr_sampler_vllm.status.health import SILENCE_S, complaints
from qr_sampler_vllm.status.run_directory import VARIABLE, announce, publish, published


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory as the front end makes it."""
    private = tmp_path / "run"
    private.mkdir(mode=0o700)
    monkeypatch.setenv(VARIABLE, f"{os.getpid()}:{private}")
    return private


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(checks, "_engines_known", False)
    monkeypatch.setattr(checks, "_elsewhere", False)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the front end logs, although vLLM keeps its loggers to itself."""
    checks.logger.addHandler(caplog.handler)
    yield caplog
    checks.logger.removeHandler(caplog.handler)


def said_by(pid: int, **changes: Any) -> dict[str, Any]:
    """What a healthy engine in the process *pid* says, but for *changes*."""
    facts = {"engine": 0, "run_id": "r", "pid": pid, "runner": "Model Runner V1"}
    status = EngineStatus(facts, {"device": ConstantEntropySource(name="device")})
    said_ns = {"said_monotonic_ns": time.monotonic_ns()}
    return {**status.as_dict(records_lost=0), **said_ns, **changes}


def reasons(**changes: Any) -> list[str]:
    """What is complained of when an engine of this process says what *changes* tell."""
    return complaints([said_by(os.getpid(), **changes)])


HEALTH = {"state": "ok", "tested": "raw", "reason": "", "alarms": {}}
SICK = {**HEALTH, "state": "failed", "reason": "bit_planes: 0.5, where 0.2 is too much"}
SOURCE = {
    "name": "device",
    "available": True,
    "reason": "",
    "last_draw_failed": False,
    "health": HEALTH,
}
FAILED = {**SOURCE, "last_draw_failed": True}
UNPLUGGED = {**FAILED, "available": False, "reason": "unplugged"}
NAN = {"reason": "nan", "count": 2}
MASKED = {"reason": "masked", "count": 3}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sources": [UNPLUGGED]}, "source device is unavailable: unplugged"),
        ({"sources": [FAILED, SOURCE]}, "the last draw from source device has failed"),
        (
            {"sources": [SOURCE, {**SOURCE, "health": SICK}]},
            "source device has failed its health tests: bit_planes: 0.5, where 0.2 is too much",
        ),
        ({"recent_tokens": 100, "recent_without_source": 51}, "51 of the last 100 tokens"),
        ({"undecided_tokens": [MASKED, NAN]}, "2 rows of logits held NaN"),
        ({"undecided_tokens": [NAN]}, "restart the engine"),
        ({"records_lost": 3}, "3 records could not be written"),
    ],
)
def test_what_makes_an_engine_unhealthy_is_named(changes: dict[str, Any], complaint: str) -> None:
    (reason,) = reasons(**changes)
    assert reason.startswith("engine 0: ")
    assert complaint in reason


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recent_tokens": 100, "recent_without_source": 50},
        {"undecided_tokens": [MASKED]},
        {"sources": [SOURCE, UNPLUGGED]},
        {"sources": [{**SOURCE, "health": {**HEALTH, "state": "suspect"}}]},
        {"sources": [{**SOURCE, "health": {**HEALTH, "state": "untested"}}]},
    ],
)
def test_half_of_the_tokens_masked_rows_and_other_sources_are_no_reason(
    changes: dict[str, Any],
) -> None:
    assert reasons(**changes) == []


def test_an_engine_whose_process_has_ended_is_unhealthy() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert complaints([said_by(child.pid)]) == ["engine 0: its process has ended"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell")
def test_an_engine_whose_process_only_waits_for_its_parent_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert complaints([said_by(child.pid)]) == ["engine 0: its process has ended"]
    child.wait()


def test_an_engine_that_is_stuck_is_unhealthy() -> None:
    assert silence(SILENCE_S + 5).startswith("engine 0: its process has said nothing for 6")
    assert silence(SILENCE_S - 30) == ""


def silence(seconds: float) -> str:
    """What is complained of when an engine has last said something so many seconds ago."""
    said_ns = time.monotonic_ns() - round(seconds * 1e9)
    return "".join(reasons(said_monotonic_ns=said_ns))


@pytest.mark.parametrize("hours", [-1, 1])
def test_who_sets_the_clock_makes_no_engine_sick_or_healthy(
    directory: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    StatusFile("engine-0-r").update(said_by(os.getpid(), last_draw=last_draw()))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + hours * 3600 * 10**9)
    code, document = status_document()
    assert (code, document["reasons"]) == (HEALTHY, [])
    (engine,) = document["engines"]
    assert 0.0 < engine["last_draw_age_s"] < 3000.0
    assert silence(SILENCE_S + 5)
    assert not silence(SILENCE_S - 30)


def test_no_engine_at_all_is_unhealthy(directory: Path) -> None:
    code, body = status_document()
    assert code == 503
    assert not body["healthy"]
    assert "no engine" in body["reasons"][0]


def test_the_document_shows_engines_and_gives_nothing_away(directory: Path) -> None:
    secret = "no answer from qrng.internal:50051 with key s3cr3t7"
    source = FallbackEntropySource(
        ConstantEntropySource(name="device", fail_with=secret), ConstantEntropySource(name="spare")
    )
    session = SamplingSession(
        EngineFacts(engine="e", model=str(directory)),
        Settings.load(entropy_source_type="system"),
        sources={"system": source},
    )
    publish("engine-0-r", {**session.status(), "said_monotonic_ns": time.monotonic_ns()})
    code, body = status_document()
    assert code == 503
    text = json.dumps(body, ensure_ascii=False)
    assert "no answer from … with key …" in text
    for hidden in (str(directory), "qrng", "50051", "s3cr3t7"):
        assert hidden not in text


def test_the_document_shows_the_age_of_the_last_draw_and_no_number_of_a_process(
    directory: Path,
) -> None:
    publish("engine-0-r", said_by(os.getpid(), last_draw=last_draw()))
    code, body = status_document()
    assert code == 200
    assert body["healthy"]
    (engine,) = body["engines"]
    assert 0.0 <= engine["last_draw_age_s"] < 60.0
    assert "pid" not in engine


def last_draw() -> dict[str, Any]:
    return {"source": "device", "wall_time_ns": 5, "monotonic_ns": time.monotonic_ns()}


class TestStatusFile:
    """Written when something has changed, but seldom."""

    @pytest.fixture
    def writes(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        writes: list[dict[str, Any]] = []
        monkeypatch.setattr(status_file, "publish", lambda name, said: writes.append(said))
        return writes

    def test_changes_are_written_at_most_twice_per_second(
        self, writes: list[dict[str, Any]]
    ) -> None:
        now = [100.0]
        file = StatusFile("engine", lambda: now[0])
        for tick in range(80):
            now[0] = 100.0 + tick / 16
            file.update({"tick": tick})
        assert [said["tick"] for said in writes] == list(range(0, 80, 8))

    def test_what_has_not_changed_is_repeated_now_and_then(
        self, writes: list[dict[str, Any]]
    ) -> None:
        now = [0.0]
        file = StatusFile("engine", lambda: now[0])
        for tick in range(int(3 * REPEAT_S)):
            now[0] = float(tick)
            file.update({"tokens": 1})
        assert len(writes) == 3
        assert REPEAT_S < SILENCE_S / 2
        assert all(said["said_wall_time_ns"] for said in writes)

    def test_a_disk_that_refuses_is_mentioned_once(
        self, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
    ) -> None:
        def refuse(name: str, said: dict[str, Any]) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(status_file, "publish", refuse)
        now = [0.0]
        file = StatusFile("engine", lambda: now[0])
        for tick in range(5):
            now[0] = float(tick)
            file.update({"tick": tick})
        # A logger that also hands on to its parents shows a record twice.
        assert len(set(map(id, warnings.records))) == 1


def test_a_disk_that_refuses_leaves_no_half_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        publish("engine", {})
    assert list(directory.iterdir()) == []


def test_a_status_is_replaced_as_a_whole(directory: Path) -> None:
    for count in range(3):
        publish("engine-1", {"count": count})
    publish("engine-0", {"count": 7})
    assert published() == [{"count": 7}, {"count": 2}]
    assert sorted(path.name for path in directory.iterdir()) == ["engine-0.json", "engine-1.json"]


def test_a_directory_that_is_removed_under_an_engine_is_made_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("engine-0", {"count": 1})
    shutil.rmtree(directory)
    publish("engine-0", {"count": 2})
    assert not directory.exists(), "its maker removes it when everything ends"
    front_end_pid = os.getppid()
    monkeypatch.setenv(VARIABLE, f"{front_end_pid}:{directory}")
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    publish("engine-0", {"count": 3})
    assert published() == [{"count": 3}]
    checks.check_engines()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    monkeypatch.setenv(VARIABLE, f"{front_end_pid}:{directory}-of-another-host")
    publish("engine-0", {"count": 4})
    assert not Path(f"{directory}-of-another-host").exists()


def test_a_directory_that_others_can_write_to_is_not_trusted(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.chmod(0o755)
    assert run_directory.run_directory() is None
    directory.chmod(0o700)
    assert run_directory.run_directory() == directory
    link = directory.with_name("link")
    link.symlink_to(directory)
    monkeypatch.setenv(VARIABLE, f"{os.getpid()}:{link}")
    assert run_directory.run_directory() is None
    monkeypatch.setenv(VARIABLE, f"{os.getpid()}:{directory / 'absent'}")
    assert run_directory.run_directory() is None
    publish("engine", {})
    announce()
    assert published() == []


MAKE = f"""
import multiprocessing, os, subprocess, sys
from pathlib import Path
from qr_sampler_vllm.status.run_directory import announce, announced
from qr_sampler_vllm.status.run_directory import make_run_directory, run_directory


def work(expected):
    make_run_directory()
    assert str(run_directory()) == expected
    announce()


def begin():
    make_run_directory()
    made = str(run_directory())
    make_run_directory()
    assert str(run_directory()) == made
    child = multiprocessing.get_context("spawn").Process(target=work, args=(made,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert announced()
    assert os.path.isdir(made)
    print(made, oct(os.stat(made).st_mode), flush=True)
    return made


def in_child():
    os.environ.pop("{VARIABLE}", None)
    begin()


if __name__ == "__main__":
    if sys.argv[1] == "main":
        begin()
    elif sys.argv[1] == "child":
        front_end = multiprocessing.get_context("spawn").Process(target=in_child)
        front_end.start()
        front_end.join()
        assert front_end.exitcode == 0
    else:
        begin()
        subprocess.run([sys.executable, __file__, "main"], check=True)
        assert announced()
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], list[tuple[str, str]]]:
    """Runs a script that makes run directories and returns them with their modes."""
    script = tmp_path / "make.py"
    script.write_text(MAKE)

    def run(what: str) -> list[tuple[str, str]]:
        command = [sys.executable, str(script), what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        words = done.stdout.split()
        return list(zip(words[::2], words[1::2], strict=True))

    return run


@pytest.mark.parametrize("process", ["main", "child"])
def test_the_front_end_makes_a_private_directory_and_removes_it(
    make: Callable[[str], list[tuple[str, str]]], process: str
) -> None:
    """Its children learn of it, and do not remove it when they end."""
    ((made, mode),) = make(process)
    assert stat.S_IMODE(int(mode, 8)) == 0o700
    assert not Path(made).exists()


def test_a_front_end_that_another_one_has_started_has_a_directory_of_its_own(
    make: Callable[[str], list[tuple[str, str]]],
) -> None:
    """Engines of the one say nothing of those of the other."""
    (outer, _), (inner, _) = make("nested")
    assert outer != inner
    assert not Path(outer).exists()
    assert not Path(inner).exists()


def test_workers_of_ray_belong_to_the_front_end(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"{os.getpid() + 1}:{directory}")
    assert run_directory.run_directory() is None
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())  # type: ignore[arg-type]
    assert run_directory.run_directory() == directory


def front_end_config(**changes: Any) -> SimpleNamespace:
    parallel = SimpleNamespace(
        nnodes=changes.get("nnodes", 1),
        distributed_executor_backend=changes.get("backend", "mp"),
        data_parallel_size_local=changes.get("local", 1),
    )
    return SimpleNamespace(
        parallel_config=parallel,
        model_config=SimpleNamespace(),
        speculative_config=changes.get("speculative_config"),
        use_v2_model_runner=changes.get("v2", False),
    )


class TestFrontEnd:
    SPECULATION = SimpleNamespace(rejection_sample_method="standard")

    def test_speculation_under_model_runner_v1_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"Model Runner V1 drops .*VLLM_USE_V2_MODEL_RUNNER"):
            checks.check_front_end(front_end_config(speculative_config=self.SPECULATION))
        checks.check_front_end(front_end_config(speculative_config=self.SPECULATION, v2=True))
        checks.check_front_end(front_end_config())

    def test_requests_are_refused_until_an_engine_has_announced_itself(
        self, directory: Path
    ) -> None:
        for _ in range(2):
            with pytest.raises(ConfigError, match="the engine has not loaded it"):
                checks.check_engines()
        announce()
        checks.check_engines()

    def test_what_was_seen_once_is_not_looked_for_again(self, directory: Path) -> None:
        announce()
        checks.check_engines()
        (directory / f"loaded-{os.getpid()}").unlink()
        checks.check_engines()

    def test_a_process_that_only_follows_announces_itself(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With an external launcher each rank is a front end of its own."""
        monkeypatch.setattr(processor, "_role", lambda *arguments: EngineRole())
        QRSamplerLogitsProcessor(front_end_config(), "cpu", False)
        assert published() == []
        checks.check_engines()

    def test_offline_a_cluster_of_ray_cannot_be_seen(
        self,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        warnings: pytest.LogCaptureFixture,
    ) -> None:
        executor = "vllm.v1.executor.ray_executor_v2"
        monkeypatch.setitem(sys.modules, executor, SimpleNamespace())  # type: ignore[arg-type]
        checks.check_engines()
        assert "cannot see whether" in warnings.text

    @pytest.mark.parametrize("where", [{"nnodes": 2}, {"backend": "ray"}, {"local": 0}])
    def test_engines_on_other_hosts_cannot_be_seen(
        self, directory: Path, where: dict[str, Any], warnings: pytest.LogCaptureFixture
    ) -> None:
        checks.check_front_end(front_end_config(**where))
        checks.check_engines()
        checks.check_engines()
        assert {r.getMessage()[:20] for r in warnings.records} == {"the front end cannot"}

    def test_without_a_directory_there_is_a_warning(
        self, warnings: pytest.LogCaptureFixture
    ) -> None:
        checks.check_engines()
        assert "cannot see whether" in warnings.text
        assert "VLLM_PLUGINS" in warnings.text


class TestGuard:
    """Stands in for vLLM's module, whose function drops the plugin."""

    SPECULATION = SimpleNamespace(rejection_sample_method="standard")

    @pytest.fixture
    def module(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        module = SimpleNamespace(build_logitsprocs=lambda config, *rest, **options: "built")
        names = ["vllm", "vllm.v1", "vllm.v1.sample", "vllm.v1.sample.logits_processor"]
        packages = [*(SimpleNamespace() for _ in names[1:]), module]
        for name, package in zip(names, packages, strict=True):
            monkeypatch.setitem(sys.modules, name, package)  # type: ignore[arg-type]
        packages[2].logits_processor = module
        return module

    @staticmethod
    def config(runner_type: str, speculative_config: object) -> SimpleNamespace:
        model = SimpleNamespace(runner_type=runner_type)
        return SimpleNamespace(model_config=model, speculative_config=speculative_config)

    def test_speculation_is_refused_where_the_plugin_would_be_dropped(
        self, module: SimpleNamespace
    ) -> None:
        guard_model_runner_v1()
        speculating = self.config("generate", self.SPECULATION)
        with pytest.raises(ConfigError, match="Model Runner V1 drops"):
            module.build_logitsprocs(speculating, "cpu", False, is_pooling_model=False)
        with pytest.raises(ConfigError, match="Model Runner V1 drops"):
            module.build_logitsprocs(vllm_config=speculating)

    def test_other_engines_are_none_of_its_business(self, module: SimpleNamespace) -> None:
        guard_model_runner_v1()
        for runner_type, speculation in [("generate", None), ("pooling", self.SPECULATION)]:
            config = self.config(runner_type, speculation)
            assert module.build_logitsprocs(config, "cpu", pin=True) == "built"

    def test_it_wraps_once(self, module: SimpleNamespace) -> None:
        guard_model_runner_v1()
        guarded = module.build_logitsprocs
        guard_model_runner_v1()
        assert module.build_logitsprocs is guarded

    def test_without_such_a_function_there_is_nothing_to_do(self, module: SimpleNamespace) -> None:
        del module.build_logitsprocs
        guard_model_runner_v1()
        assert vars(module) == {}
