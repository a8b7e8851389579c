# SPDX-License-Identifier: Apache-2.0
"""Offline engines of both model runners: what is emitted is what was recorded.

Every engine runs in a process of its own, because vLLM keeps global state. Starting one takes most
of the time, so whatever can share an engine does.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

RUNNERS = ("v1", "v2")

GENERATE = """
    import json, os, sys
    from vllm import LLM, SamplingParams
    from vllm.exceptions import VLLMValidationError
    import qr_sampler_vllm

    task = json.loads(sys.argv[1])
    llm = LLM(
        model=task["model"],
        distributed_executor_backend="uni",
        enforce_eager=True,
        dtype="float32",
        max_model_len=256,
        **task.get("engine", {}),
    )
    refused = []
    for bad in task.get("bad", []):
        try:
            llm.generate(["x"], SamplingParams(extra_args=bad), use_tqdm=False)
        except VLLMValidationError as error:
            refused.append(str(error))
    params = [
        SamplingParams(
            extra_args=extra,
            temperature=index % 2,
            **{"max_tokens": 12, **task.get("params", {}).get(extra.get("qr_request_key"), {})},
        )
        for index, extra in enumerate(task["extra_args"])
    ]
    outputs = llm.generate(task["prompts"], params, use_tqdm=False)
    qr_sampler_vllm.flush_records()
    texts = [
        {"token_ids": list(o.outputs[0].token_ids), "reason": o.outputs[0].finish_reason}
        for o in outputs
    ]
    print("RESULT " + json.dumps({"outputs": texts, "refused": refused}))
"""

RunScript = Callable[..., Any]


def result_of(done: Any) -> Any:
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines, done.stdout + done.stderr
    return json.loads(lines[-1].removeprefix("RESULT "))


def ledger_lines(directory: Path) -> list[dict[str, Any]]:
    (file,) = directory.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def of_kind(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


class OfflineEngine:
    """Generates with one engine in a fresh process and reads its ledger."""

    def __init__(self, run: RunScript, model: Path, ledger: Path, runner: str) -> None:
        self._run = run
        self.model = model
        self.ledger = ledger
        self._runner = runner

    def script(
        self, source: str, task: Mapping[str, Any], env: Mapping[str, str] | None = None
    ) -> Any:
        variables = {
            "QR_ENTROPY_SOURCE_TYPE": "system",
            "QR_FALLBACK_MODE": "error",
            "QR_LEDGER_DIR": str(self.ledger),
            **(env or {}),
        }
        arguments = [json.dumps({"model": str(self.model), **task})]
        return self._run(
            textwrap.dedent(source), arguments=arguments, env=variables, runner=self._runner
        )

    def generate(
        self, task: Mapping[str, Any], env: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        outputs: list[dict[str, Any]] = result_of(self.script(GENERATE, task, env))["outputs"]
        return outputs, ledger_lines(self.ledger)


@pytest.fixture(params=RUNNERS)
def engine(
    request: pytest.FixtureRequest, run_engine_script: RunScript, tiny_model: Path, tmp_path: Path
) -> OfflineEngine:
    return OfflineEngine(run_engine_script, tiny_model, tmp_path / "ledger", request.param)


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

    def __init__(self, engine: OfflineEngine) -> None:
        task = shared_task()
        result = result_of(engine.script(GENERATE, task))
        keys = [extra["qr_request_key"] for extra in task["extra_args"]]
        self.outputs: dict[str, Any] = dict(zip(keys, result["outputs"], strict=True))
        self.refused: list[str] = result["refused"]
        self.lines = ledger_lines(engine.ledger)


@pytest.fixture(scope="module", params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared(
    runner: str,
    run_engine_script: RunScript,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> SharedRun:
    ledger = tmp_path_factory.mktemp("ledger") / runner
    return SharedRun(OfflineEngine(run_engine_script, tiny_model, ledger, runner))


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
    discards = of_kind(shared.lines, "discard")
    if runner == "v1":
        assert sum(line["request_key"] == "long" for line in discards) >= 2
        assert {line["reason"] for line in discards} == {"not_emitted"}
        assert {line["position"] for line in discards} == {0}
    else:
        assert discards == []


def test_bad_values_are_refused_before_the_engine_sees_them(shared: SharedRun) -> None:
    assert len(shared.refused) == len(BAD)
    assert all(name in message for name, message in zip(BAD, shared.refused, strict=True))


def test_both_runners_make_the_same_text_of_the_same_bytes(
    run_engine_script: RunScript, tiny_model: Path, tmp_path: Path
) -> None:
    """The two requests are equal but for the bytes that they get, and so differ."""
    task = {
        "prompts": ["Light is"] * 2,
        "extra_args": [{"qr_request_key": key} for key in ("a", "b")],
    }
    seeded = {"QR_ENTROPY_SOURCE_TYPE": "mock_uniform", "QR_MOCK_UNIFORM_SEED": "7"}
    texts = []
    for name in RUNNERS:
        engine = OfflineEngine(run_engine_script, tiny_model, tmp_path / name, name)
        texts.append(engine.generate(task, seeded)[0])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]


def test_plugin_loaded_twice_is_refused(engine: OfflineEngine) -> None:
    task = {
        "prompts": ["x"],
        "extra_args": [{}],
        "engine": {"logits_processors": ["qr_sampler_vllm.processor:QRSamplerLogitsProcessor"]},
    }
    done = engine.script(GENERATE, task)
    assert done.returncode != 0
    assert "loaded twice" in done.stdout + done.stderr


def test_speculative_decoding_is_refused(
    run_engine_script: RunScript, tiny_model: Path, tmp_path: Path
) -> None:
    """Model Runner V2 only: V1 does not construct the plugin, so it cannot speak up there."""
    engine = OfflineEngine(run_engine_script, tiny_model, tmp_path / "ledger", "v2")
    speculation = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}
    done = engine.script(
        GENERATE,
        {"prompts": ["x"], "extra_args": [{}], "engine": {"speculative_config": speculation}},
    )
    assert done.returncode != 0
    assert "speculative decoding is configured" in done.stdout + done.stderr


def test_warmup_draws_nothing(
    run_engine_script: RunScript, tiny_model: Path, tmp_path: Path
) -> None:
    """vLLM's own warm-up of Model Runner V2 fills every slot and samples made-up logits."""
    engine = OfflineEngine(run_engine_script, tiny_model, tmp_path / "ledger", "v2")
    script = GENERATE.replace(
        "params = [",
        """
    from vllm.v1.worker.gpu.warmup import warmup_kernels
    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    warmup_kernels(worker.model_runner, worker.execute_model, worker.sample_tokens)
    params = [""",
    )
    task: dict[str, Any] = {"prompts": ["Light is"], "extra_args": [{"qr_request_key": "a"}]}
    task["engine"] = {"max_num_seqs": 4}
    outputs = result_of(engine.script(script, task))["outputs"]
    lines = ledger_lines(engine.ledger)
    assert_one_record_per_token(outputs, ["a"], lines)
    assert of_kind(lines, "discard") == []


def broken_distribution(directory: Path) -> None:
    """Writes what pip would install of a source package whose module cannot be imported."""
    metadata = directory / "qr_broken-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: qr-broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[qr_sampler.entropy_sources]\nbroken = qr_broken:BrokenSource\n"
    )
    (directory / "qr_broken.py").write_text('raise OSError("device library missing")\n')


@pytest.mark.parametrize(("selected", "starts"), [("system", True), ("broken", False)])
def test_a_broken_source_package_stops_only_its_own_use(
    run_engine_script: RunScript, tiny_model: Path, tmp_path: Path, selected: str, starts: bool
) -> None:
    engine = OfflineEngine(run_engine_script, tiny_model, tmp_path / "ledger", "v1")
    broken_distribution(tmp_path / "site")
    env = {"PYTHONPATH": str(tmp_path / "site"), "QR_ENTROPY_SOURCE_TYPE": selected}
    task = {"prompts": ["Light is"], "extra_args": [{"qr_request_key": "a"}]}
    done = engine.script(GENERATE, task, env)
    if starts:
        outputs = result_of(done)["outputs"]
        assert_one_record_per_token(outputs, ["a"], ledger_lines(engine.ledger))
    else:
        assert done.returncode != 0
        assert "qr-broken 1.0" in done.stdout + done.stderr
        assert "device library missing" in done.stdout + done.stderr
