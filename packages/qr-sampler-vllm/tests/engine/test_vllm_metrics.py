# SPDX-License-Identifier: Apache-2.0
"""What a scraper and a person get to read, and the plugin that lets them."""

from __future__ import annotations

import json
import os
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

vllm = pytest.importorskip("vllm", reason="needs vLLM, which the vllm session installs")

from fastapi import FastAPI  # noqa: E402
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from qr_sampler import (  # noqa: E402
    BypassRecord,
    ConfigError,
    DroppedBytes,
    UndecidedRecord,
    dropped_record,
)
from qr_sampler.host.status import EngineStatus  # noqa: E402
from qr_sampler.testing import ConstantEntropySource  # noqa: E402
from qr_sampler_vllm.front_end import stat_logger, unsampled_answers  # noqa: E402
from qr_sampler_vllm.front_end.stat_logger import FrontEndCheck  # noqa: E402
from qr_sampler_vllm.runners.follower import Follower  # noqa: E402
from qr_sampler_vllm.runners.role import EngineRole  # noqa: E402
from qr_sampler_vllm.status.endpoint import StatusEndpoint  # noqa: E402
from qr_sampler_vllm.status.prometheus import EngineCollector  # noqa: E402
from qr_sampler_vllm.status.run_directory import VARIABLE  # noqa: E402


def status() -> dict[str, Any]:
    """The status of an engine that has lost some bytes."""
    facts = {
        "engine": 3,
        "run_id": "r",
        "pid": os.getpid(),
        "said_monotonic_ns": time.monotonic_ns(),
    }
    found = EngineStatus(facts, {"device": ConstantEntropySource(name="device")})
    found.observe([dropped_record(DroppedBytes("device", 7, "late", 1))])
    undecided = UndecidedRecord(
        request_key="r", sequence="s", position=0, token_id=0, reason="masked", wall_time_ns=1
    )
    found.observe([undecided] * 3)
    found.observe([BypassRecord(request_key=None, wall_time_ns=1)] * 2)
    said: dict[str, Any] = found.as_dict(records_lost=2)
    said["sources"][0]["health"].update(state="failed", alarms={"bit_planes": 4})
    return said


def test_a_scraper_reads_what_the_engines_say() -> None:
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: [status()]))
    text = generate_latest(registry).decode()
    samples = {
        sample.name: (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    labels, value = samples["qr_sampler_discarded_bytes_total"]
    assert (labels["reason"], value) == ("late", 7.0)
    assert samples["qr_sampler_records_lost_total"][1] == 2.0
    assert samples["qr_sampler_requests_left_to_vllm_total"] == ({"engine": "3"}, 2)
    assert samples["qr_sampler_undecided_tokens_total"] == ({"engine": "3", "reason": "masked"}, 3)
    assert samples["qr_sampler_source_available"][1] == 1.0
    assert samples["qr_sampler_draw_seconds_count"][1] == 0.0
    labels = {"engine": "3", "source": "device"}
    assert samples["qr_sampler_health_state"] == (labels, 2.0)
    counted = {**labels, "test": "bit_planes"}
    assert samples["qr_sampler_health_alarms_total"] == (counted, 4.0)


def test_the_routes_answer_from_what_lies_in_the_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    app = FastAPI()
    StatusEndpoint().attach_router(app)
    answers = {
        route.path: route.endpoint()  # type: ignore[attr-defined]
        for route in app.routes
        if getattr(route, "path", "").startswith("/qr/")
    }
    assert sorted(answers) == ["/qr/metrics", "/qr/status"]
    assert answers["/qr/status"].status_code == 503
    assert not json.loads(answers["/qr/status"].body)["healthy"]
    assert b"qr_sampler_tokens" in answers["/qr/metrics"].body


def front_end_config(speculative_config: Any, runner_type: str = "generate") -> Any:
    return SimpleNamespace(
        parallel_config=SimpleNamespace(),
        model_config=SimpleNamespace(runner_type=runner_type),
        speculative_config=speculative_config,
        use_v2_model_runner=False,
    )


def test_the_front_end_is_checked_and_the_metrics_are_registered_once() -> None:
    logger = FrontEndCheck(front_end_config(None))
    FrontEndCheck(front_end_config(None), 1)
    logger.record(scheduler_stats=None, iteration_stats=None)
    logger.log_engine_initialized()
    (collector,) = stat_logger._collectors
    REGISTRY.unregister(collector)
    stat_logger._collectors.clear()
    with pytest.raises(ConfigError, match="Model Runner V1 drops"):
        FrontEndCheck(front_end_config(SimpleNamespace()))


def test_a_pooling_engine_has_no_health_of_ours() -> None:
    FrontEndCheck(front_end_config(SimpleNamespace(), runner_type="pooling"))
    assert stat_logger._collectors == []
    assert "qr_sampler_healthy" not in generate_latest(REGISTRY).decode()


def test_what_is_answered_from_probabilities_is_refused() -> None:
    """Each feature that this version of vLLM has, before it asks the engine for anything."""
    unsampled_answers.refuse_unsampled_answers(load=True)
    refused = set()
    for feature in unsampled_answers._FEATURES:
        try:
            owner = getattr(import_module(feature.module), feature.owner)
            answer = vars(owner)[feature.method]
        except (ImportError, AttributeError, KeyError):
            continue
        with pytest.raises(ConfigError, match=f"^{feature.name} answers from probabilities"):
            answer(None)
        refused.add(feature.name)
    assert {"beam search", "generative scoring"} <= refused
    unsampled_answers.refuse_unsampled_answers(load=False)
    with pytest.raises(ConfigError, match="beam search"):
        vllm.LLM.beam_search(None, [], None)


class Ranks:
    """Notes what a rank was told to hear."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def hear(self, logits: Any) -> None:
        self.heard.append(logits)


def test_other_ranks_take_part_in_the_same_requests_as_the_first() -> None:
    ranks = Ranks()
    follower = Follower(ranks)  # type: ignore[arg-type]
    assert follower.add_request(0, vllm.SamplingParams())
    assert not follower.add_request(0, vllm.SamplingParams(extra_args={"qr_bypass": 1}))
    logits = object()
    assert follower.apply(logits) is logits
    assert ranks.heard == [logits]
    follower.update_state(None)
    follower.apply_staged_writes()


def test_a_stage_that_does_not_sample_does_nothing() -> None:
    bystander, logits = EngineRole(), object()
    assert not bystander.add_request(0, None)
    assert bystander.apply(logits) is logits
