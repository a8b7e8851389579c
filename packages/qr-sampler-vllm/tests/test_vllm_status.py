# SPDX-License-Identifier: Apache-2.0
"""What an engine says of itself, who may read it, and when it is called unhealthy."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    ConfigError,
    DroppedBytes,
    EntropySource,
    FallbackEntropySource,
    ForcedRecord,
    Record,
    RequestOptions,
    Rows,
    SamplingPipeline,
    Settings,
    dropped_record,
    token_record,
)
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_vllm import front_end, run_directory
from qr_sampler_vllm.engine_status import RECENT_TOKENS, EngineStatus
from qr_sampler_vllm.health import complaints
from qr_sampler_vllm.run_directory import VARIABLE, publish, published
from qr_sampler_vllm.status_endpoint import status_document

FACTS = {"engine": 0, "run_id": "r", "pid": os.getpid(), "runner": "Model Runner V1"}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory as the front end makes it."""
    private = tmp_path / "run"
    private.mkdir(mode=0o700)
    monkeypatch.setenv(VARIABLE, str(private))
    return private


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(front_end, "_engines_known", False)
    monkeypatch.setattr(front_end, "_elsewhere", False)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the front end logs, although vLLM keeps its loggers to itself."""
    front_end.logger.addHandler(caplog.handler)
    yield caplog
    front_end.logger.removeHandler(caplog.handler)


def token_records(source: EntropySource, count: int) -> list[Record]:
    """Records of *count* steps of one row."""
    settings = Settings.load(sample_count=4, max_ks_distance=1)
    options = RequestOptions(parameters=settings.sampling, source=source.name)
    pipeline = SamplingPipeline(settings, source)
    logits = np.zeros((1, 8), np.float32)
    records: list[Record] = []
    for position in range(count):
        step = pipeline.sample(logits, Rows([settings.sampling]))
        assert step is not None
        records.append(
            token_record(step, 0, request_key="r", sequence="s", position=position, options=options)
        )
    return records


def forced(reason: str) -> ForcedRecord:
    return ForcedRecord(
        request_key="r",
        sequence="s",
        position=1,
        token_id=0,
        reason=reason,
        source="device",
        wall_time_ns=5,
    )


class Device:
    """A device with a spare, and the status of an engine that draws from it."""

    def __init__(self) -> None:
        self.primary = ConstantEntropySource(name="device")
        self.source = FallbackEntropySource(self.primary, ConstantEntropySource(name="spare"))
        self.status = EngineStatus(FACTS, {"device": self.source})

    def sample(self, count: int) -> None:
        self.status.observe(token_records(self.source, count))

    def said(self, records_lost: int = 0) -> dict[str, Any]:
        said: dict[str, Any] = self.status.as_dict(records_lost=records_lost)
        assert json.loads(json.dumps(said, allow_nan=False)) == said
        return said


def test_a_status_counts_what_was_recorded() -> None:
    device = Device()
    device.sample(3)
    device.primary.fail_with = "unplugged"
    device.sample(2)
    device.status.observe([forced("gone"), dropped_record(DroppedBytes("device", 7, "late", 1))])
    said = device.said(records_lost=2)
    assert said["tokens"] == [
        {"source": "device", "fallback": False, "count": 3},
        {"source": "spare", "fallback": True, "count": 2},
    ]
    assert (said["token_bytes"], said["forced_tokens"], said["records_lost"]) == (20, 1, 2)
    assert said["discards"] == [{"reason": "late", "count": 1, "bytes": 7}]
    assert sum(said["draws"]["buckets"]) == 5
    assert said["last_draw"]["source"] == "spare"
    assert said["last_failure"]["reason"] == "gone"
    assert said["sources"] == [{"name": "device", "available": False, "reason": "unplugged"}]
    assert (said["recent_tokens"], said["recent_without_source"]) == (6, 3)


def test_rows_of_one_draw_are_one_draw() -> None:
    device = Device()
    device.status.observe(token_records(device.source, 1) * 4)
    said = device.said()
    assert said["tokens"][0]["count"] == 4
    assert sum(said["draws"]["buckets"]) == 1


def test_health_follows_the_source_and_the_share_of_the_fallback() -> None:
    device = Device()
    device.sample(RECENT_TOKENS)
    assert complaints([device.said()]) == []
    device.primary.fail_with = "unplugged"
    (complaint,) = complaints([device.said()])
    assert complaint == "engine 0: source device is unavailable: unplugged"
    device.sample(RECENT_TOKENS // 2)
    assert len(complaints([device.said()])) == 1
    device.sample(1)
    assert f"51 of the last {RECENT_TOKENS}" in complaints([device.said()])[1]
    device.primary.fail_with = None
    device.sample(RECENT_TOKENS)
    assert complaints([device.said()]) == []
    assert "3 records" in complaints([device.said(records_lost=3)])[0]


def test_an_engine_whose_process_has_ended_is_unhealthy() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    status = EngineStatus({**FACTS, "pid": child.pid}, {"device": ConstantEntropySource()})
    assert complaints([status.as_dict(records_lost=0)]) == ["engine 0: its process has ended"]


def test_no_engine_at_all_is_unhealthy(directory: Path) -> None:
    code, body = status_document()
    assert code == 503
    assert not body["healthy"]
    assert "no engine" in body["reasons"][0]


def test_the_document_shows_engines_and_gives_nothing_away(directory: Path) -> None:
    device = Device()
    device.sample(1)
    publish("engine-0-r", device.said())
    code, body = status_document()
    assert code == 200
    assert body["healthy"]
    (engine,) = body["engines"]
    assert 0.0 <= engine["last_draw_age_s"] < 60.0
    assert str(directory) not in json.dumps(body)


def test_a_status_is_replaced_as_a_whole(directory: Path) -> None:
    for count in range(3):
        publish("engine-1", {"count": count})
    publish("engine-0", {"count": 7})
    assert published() == [{"count": 7}, {"count": 2}]
    assert sorted(path.name for path in directory.iterdir()) == ["engine-0.json", "engine-1.json"]


def test_a_directory_that_others_can_write_to_is_not_trusted(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.chmod(0o755)
    assert run_directory.run_directory() is None
    directory.chmod(0o700)
    assert run_directory.run_directory() == directory
    link = directory.with_name("link")
    link.symlink_to(directory)
    monkeypatch.setenv(VARIABLE, str(link))
    assert run_directory.run_directory() is None
    monkeypatch.setenv(VARIABLE, str(directory / "absent"))
    assert run_directory.run_directory() is None
    publish("engine", {})
    assert published() == []


MAKE = f"""
import os, subprocess, sys
from qr_sampler_vllm.front_end import prepare

prepare()
made = os.environ["{VARIABLE}"]
prepare()
assert os.environ["{VARIABLE}"] == made
child = (
    "import os; from qr_sampler_vllm.front_end import prepare;"
    "prepare(); print(os.environ['{VARIABLE}'])"
)
said = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
assert said.stdout.strip() == made, said
assert os.path.isdir(made)
print(made, oct(os.stat(made).st_mode))
"""


def test_the_front_end_makes_a_private_directory_and_removes_it() -> None:
    """Its children learn of it, and do not remove it when they end."""
    done = subprocess.run([sys.executable, "-c", MAKE], capture_output=True, text=True, check=True)
    made, mode = done.stdout.split()
    assert stat.S_IMODE(int(mode, 8)) == 0o700
    assert not Path(made).exists()


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
            front_end.check_front_end(front_end_config(speculative_config=self.SPECULATION))
        front_end.check_front_end(front_end_config(speculative_config=self.SPECULATION, v2=True))
        front_end.check_front_end(front_end_config())

    def test_requests_are_refused_until_an_engine_has_announced_itself(
        self, directory: Path
    ) -> None:
        for _ in range(2):
            with pytest.raises(ConfigError, match="the engine has not loaded it"):
                front_end.check_engines()
        publish("engine-0", {})
        front_end.check_engines()

    def test_what_was_seen_once_is_not_looked_for_again(self, directory: Path) -> None:
        publish("engine-0", {})
        front_end.check_engines()
        (directory / "engine-0.json").unlink()
        front_end.check_engines()

    @pytest.mark.parametrize("where", [{"nnodes": 2}, {"backend": "ray"}, {"local": 0}])
    def test_engines_on_other_hosts_cannot_be_seen(
        self, directory: Path, where: dict[str, Any], warnings: pytest.LogCaptureFixture
    ) -> None:
        front_end.check_front_end(front_end_config(**where))
        front_end.check_engines()
        front_end.check_engines()
        assert {r.getMessage()[:21] for r in warnings.records} == {"it cannot be seen fro"}

    def test_without_a_directory_there_is_a_warning(
        self, warnings: pytest.LogCaptureFixture
    ) -> None:
        front_end.check_engines()
        assert "cannot be seen" in warnings.text
