# SPDX-License-Identifier: Apache-2.0
"""Offline engines of both model runners: what is emitted is what was recorded.

Every engine runs in a process of its own, because vLLM keeps global state. Starting one takes most
of the time, so whatever can share an engine does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

RUNNERS = ("v1", "v2")

MakeEngine = Callable[[str], Any]


def of_kind(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


@pytest.fixture(params=RUNNERS)
def engine(request: pytest.FixtureRequest, offline_engine: MakeEngine) -> Any:
    return offline_engine(request.param)


def tokens_by_key(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in of_kind(lines, "token"):
        found.setdefault(line["request_key"], []).append(line)
    return found


def assert_one_record_per_token(
    outputs: list[dict[str, Any]], keys: list[str], lines: list[dict[str, Any]]
) -> None:
    recorded = tokens_by_key(lines)
    assert sorted(recorded) == sorted(keys)
    for key, output in zip(keys, outputs, strict=True):
        assert [line["token_id"] for line in recorded[key]] == output["token_ids"]
        assert [line["position"] for line in recorded[key]] == list(range(len(recorded[key])))


WISHES: dict[str, dict[str, Any]] = {
    "greedy": {"qr_top_k": 1},
    "five": {"qr_top_k": 5, "qr_fixed_temperature": 1.5},
    "edt": {"qr_temperature_strategy": "edt", "qr_edt_min_temp": 0.3, "qr_edt_max_temp": 0.4},
    "short": {"qr_sample_count": 64, "qr_trial": "t7", "qr_condition": "control"},
    "plain": {},
}
BAD = {
    "qr_top_k='abc'": {"qr_top_k": "abc"},
    "'bogus'": {"qr_temperature_strategy": "bogus"},
    "qr_sample_count=0": {"qr_sample_count": 0},
    "qr_nonsense=1": {"qr_nonsense": 1},
}
CHUNK_TOKENS = 16


def shared_task() -> dict[str, Any]:
    """Requests of every kind; prefill is in chunks, and bad requests come before the good ones."""
    ending = {"allowed_token_ids": [0, 300], "max_tokens": 40}
    extra = [{"qr_request_key": key, **wish} for key, wish in WISHES.items()]
    hot = {"qr_fixed_temperature": 1000.0}
    extra += [{"qr_request_key": key, **hot} for key in ("ends", "goes on")]
    return {
        "prompts": [
            *("The rays of light " * (index + 1) for index in range(len(WISHES))),
            "Light is",
            "Light is",
            "The rays of light are refracted " * 10,
        ],
        "extra_args": [*extra, {"qr_request_key": "long"}],
        "params": {"ends": ending, "goes on": {**ending, "ignore_eos": True}},
        "engine": {"max_num_batched_tokens": CHUNK_TOKENS, "max_num_seqs": 4},
        "bad": list(BAD.values()),
    }


class SharedRun:
    """What became of the shared task."""

    def __init__(self, engine: Any) -> None:
        task = shared_task()
        result = engine.result(engine.generate_script, task)
        keys = [extra["qr_request_key"] for extra in task["extra_args"]]
        self.outputs: dict[str, Any] = {
            key: samples[0] for key, samples in zip(keys, result["outputs"], strict=True)
        }
        self.refused: list[str] = result["refused"]
        self.lines = engine.lines()


@pytest.fixture(scope="module", params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared(runner: str, offline_engine: MakeEngine) -> SharedRun:
    return SharedRun(offline_engine(runner))


def test_every_emitted_token_has_one_record(shared: SharedRun) -> None:
    assert_one_record_per_token(list(shared.outputs.values()), list(shared.outputs), shared.lines)
    for line in of_kind(shared.lines, "token"):
        assert line["t_logits_ns"] <= line["t_request_ns"] <= line["t_received_ns"]
        assert 0.0 < line["u"] < 1.0
        assert not line["fallback"]
        assert line["source_distribution"] == "qr-entropy-sources"
    assert len(of_kind(shared.lines, "genesis")) == 1
    assert shared.lines[0]["kind"] == "genesis"


def test_every_request_is_obeyed(shared: SharedRun) -> None:
    """Half of the requests are greedy in vLLM's eyes, which must not matter."""
    recorded = tokens_by_key(shared.lines)
    assert all(line["candidates"] == 1 and line["rank"] == 0 for line in recorded["greedy"])
    assert all(line["candidates"] <= 5 and line["temperature"] == 1.5 for line in recorded["five"])
    assert all(0.3 <= line["temperature"] <= 0.4 for line in recorded["edt"])
    assert {line["block_bytes"] for line in recorded["short"]} == {64}
    labels = {(line["trial"], line["condition"]) for line in recorded["short"]}
    assert labels == {("t7", "control")}
    assert {line["block_bytes"] for line in recorded["plain"]} == {10_240}


@pytest.mark.parametrize(("key", "reason"), [("ends", "stop"), ("goes on", "length")])
def test_end_of_text_ends_the_records_unless_it_is_ignored(
    shared: SharedRun, key: str, reason: str
) -> None:
    """Only the end-of-text token 0 and one other may be chosen, so it comes at once."""
    output, recorded = shared.outputs[key], tokens_by_key(shared.lines)[key]
    assert 0 in output["token_ids"]
    assert output["reason"] == reason
    assert len(output["token_ids"]) == 40 or reason == "stop"
    assert {line["token_id"] for line in recorded} <= {0, 300}
    assert {line["rank"] for line in recorded} <= {0, 1}


def test_unfinished_prefill_is_no_token(shared: SharedRun, runner: str) -> None:
    """Model Runner V1 tells only afterwards; what was drawn for nothing is accounted for."""
    discards = [
        line for line in of_kind(shared.lines, "discard") if line["reason"] != "startup_test"
    ]
    if runner == "v1":
        assert sum(line["request_key"] == "long" for line in discards) >= 2
        assert {line["reason"] for line in discards} == {"not_emitted"}
        assert {line["position"] for line in discards} == {0}
    else:
        assert discards == []


def test_bad_values_are_refused_before_the_engine_sees_them(shared: SharedRun) -> None:
    assert len(shared.refused) == len(BAD)
    assert all(name in message for name, message in zip(BAD, shared.refused, strict=True))


def test_both_runners_make_the_same_text_of_the_same_bytes(offline_engine: MakeEngine) -> None:
    """The two requests are equal but for the bytes that they get, and so differ."""
    task = {
        "prompts": ["Light is"] * 2,
        "extra_args": [{"qr_request_key": key} for key in ("a", "b")],
    }
    seeded = {"QR_ENTROPY_SOURCE_TYPE": "mock_uniform", "QR_MOCK_UNIFORM_SEED": "7"}
    texts = [offline_engine(name).generate(task, seeded)[0] for name in RUNNERS]
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]


def test_plugin_loaded_twice_is_refused(engine: Any) -> None:
    task = {
        "prompts": ["x"],
        "extra_args": [{}],
        "engine": {"logits_processors": ["qr_sampler_vllm.processor:QRSamplerLogitsProcessor"]},
    }
    done = engine.script(engine.generate_script, task)
    assert done.returncode != 0
    assert "loaded twice" in done.stdout + done.stderr


@pytest.mark.parametrize(("selected", "starts"), [("system", True), ("broken", False)])
def test_a_broken_source_package_stops_only_its_own_use(
    offline_engine: MakeEngine, site: Any, selected: str, starts: bool
) -> None:
    engine = offline_engine("v1")
    site.install(
        "qr_broken",
        'raise OSError("device library missing")',
        {"qr_sampler.entropy_sources": "broken = qr_broken:BrokenSource"},
    )
    env = {"PYTHONPATH": str(site.directory), "QR_ENTROPY_SOURCE_TYPE": selected}
    task = {"prompts": ["Light is"], "extra_args": [{"qr_request_key": "a"}]}
    done = engine.script(engine.generate_script, task, env)
    if starts:
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(of_kind(engine.lines(), "token")) == 12
    else:
        assert done.returncode != 0
        assert "qr-broken 1.0" in done.stdout + done.stderr
        assert "device library missing" in done.stdout + done.stderr
