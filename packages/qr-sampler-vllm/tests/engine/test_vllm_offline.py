# SPDX-License-Identifier: Apache-2.0
"""Offline engines of both model runners: what is emitted is what was recorded.

Every engine runs in a process of its own, because vLLM keeps global state.
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
    params = [
        SamplingParams(
            extra_args=extra,
            temperature=index % 2,
            **{"max_tokens": 12, **task.get("params", {})},
        )
        for index, extra in enumerate(task["extra_args"])
    ]
    outputs = llm.generate(task["prompts"], params, use_tqdm=False)
    qr_sampler_vllm.flush_records()
    print("RESULT " + json.dumps([
        {"token_ids": list(o.outputs[0].token_ids), "reason": o.outputs[0].finish_reason}
        for o in outputs
    ]))
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
        outputs = result_of(self.script(GENERATE, task, env))
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


def test_every_emitted_token_has_one_record_and_obeys_its_request(engine: OfflineEngine) -> None:
    """Half of the requests are greedy in vLLM's eyes, which must not matter."""
    wishes: list[dict[str, Any]] = [
        {"qr_top_k": 1},
        {"qr_top_k": 5, "qr_fixed_temperature": 1.5},
        {"qr_temperature_strategy": "edt", "qr_edt_min_temp": 0.3, "qr_edt_max_temp": 0.4},
        {"qr_sample_count": 64, "qr_trial": "t7", "qr_condition": "control"},
        {},
    ]
    keys = [f"wish-{index}" for index in range(len(wishes))]
    extra = [{"qr_request_key": key, **wish} for key, wish in zip(keys, wishes, strict=True)]
    prompts = ["The rays of light " * (index + 1) for index in range(len(wishes))]
    outputs, lines = engine.generate({"prompts": prompts, "extra_args": extra})

    assert_one_record_per_token(outputs, keys, lines)
    recorded = tokens_by_key(lines)
    assert all(line["candidates"] == 1 and line["rank"] == 0 for line in recorded["wish-0"])
    assert all(
        line["candidates"] <= 5 and line["temperature"] == 1.5 for line in recorded["wish-1"]
    )
    assert all(0.3 <= line["temperature"] <= 0.4 for line in recorded["wish-2"])
    assert {line["block_bytes"] for line in recorded["wish-3"]} == {64}
    assert {(line["trial"], line["condition"]) for line in recorded["wish-3"]} == {
        ("t7", "control")
    }
    assert {line["block_bytes"] for line in recorded["wish-4"]} == {10_240}
    for line in of_kind(lines, "token"):
        assert line["t_logits_ns"] <= line["t_request_ns"] <= line["t_received_ns"]
        assert 0.0 < line["u"] < 1.0
        assert not line["fallback"]
        assert line["source_distribution"] == "qr-entropy-sources"
    assert len(of_kind(lines, "genesis")) == 1
    assert lines[0]["kind"] == "genesis"


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_end_of_text_ends_the_records_unless_it_is_ignored(
    engine: OfflineEngine, ignore_eos: bool
) -> None:
    """Only the end-of-text token 0 and one other may be chosen, so it comes at once."""
    task = {
        "prompts": ["Light is"],
        "extra_args": [{"qr_request_key": "a", "qr_fixed_temperature": 1000.0}],
        "params": {"allowed_token_ids": [0, 300], "ignore_eos": ignore_eos, "max_tokens": 40},
    }
    outputs, lines = engine.generate(task)
    assert_one_record_per_token(outputs, ["a"], lines)
    (output,) = outputs
    assert 0 in output["token_ids"]
    assert output["reason"] == ("length" if ignore_eos else "stop")
    assert len(output["token_ids"]) == 40 or not ignore_eos
    assert {line["token_id"] for line in of_kind(lines, "token")} <= {0, 300}
    assert {line["rank"] for line in of_kind(lines, "token")} <= {0, 1}
    assert of_kind(lines, "discard") == []


def test_both_runners_make_the_same_text_of_the_same_bytes(
    run_engine_script: RunScript, tiny_model: Path, tmp_path: Path
) -> None:
    task = {"prompts": ["Light is"], "extra_args": [{"qr_request_key": "a"}]}
    texts = []
    for runner, seed in (("v1", 7), ("v2", 7), ("v2", 8)):
        engine = OfflineEngine(run_engine_script, tiny_model, tmp_path / f"{runner}-{seed}", runner)
        seeded = {"QR_ENTROPY_SOURCE_TYPE": "mock_uniform", "QR_MOCK_UNIFORM_SEED": str(seed)}
        outputs, _ = engine.generate(task, seeded)
        texts.append(outputs)
    assert texts[0] == texts[1]
    assert texts[1] != texts[2]


def test_chunked_prefill_records_only_what_was_emitted(engine: OfflineEngine) -> None:
    task = {
        "prompts": ["The rays of light are refracted " * 10],
        "extra_args": [{"qr_request_key": "long"}],
        "engine": {"max_num_batched_tokens": 16, "max_num_seqs": 4},
    }
    outputs, lines = engine.generate(task)
    assert_one_record_per_token(outputs, ["long"], lines)
    discards = of_kind(lines, "discard")
    if engine._runner == "v1":
        assert len(discards) >= 2
        assert {line["reason"] for line in discards} == {"not_emitted"}
    else:
        assert discards == []


def test_bad_values_are_refused_before_the_engine_sees_them(engine: OfflineEngine) -> None:
    script = GENERATE.replace(
        "params = [",
        """
    from vllm.exceptions import VLLMValidationError
    refused = []
    for bad in task["bad"]:
        try:
            llm.generate(["x"], SamplingParams(extra_args=bad), use_tqdm=False)
        except VLLMValidationError as error:
            refused.append(str(error))
    params = [""",
    ).replace('"RESULT " + json.dumps(', '"RESULT " + json.dumps([refused] + ')
    task = {
        "prompts": ["Light is"],
        "extra_args": [{"qr_request_key": "good"}],
        "bad": [
            {"qr_top_k": "abc"},
            {"qr_temperature_strategy": "bogus"},
            {"qr_sample_count": 0},
            {"qr_nonsense": 1},
        ],
    }
    refused, output = result_of(engine.script(script, task))
    named = ["qr_top_k='abc'", "'bogus'", "qr_sample_count=0", "qr_nonsense=1"]
    assert len(refused) == len(named)
    assert all(name in message for name, message in zip(named, refused, strict=True))
    assert output["token_ids"]


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
    task = {"prompts": ["Light is"], "extra_args": [{"qr_request_key": "a"}]}
    outputs = result_of(engine.script(script, {**task, "engine": {"max_num_seqs": 4}}))
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
        assert_one_record_per_token(result_of(done), ["a"], ledger_lines(engine.ledger))
    else:
        assert done.returncode != 0
        assert "qr-broken 1.0" in done.stdout + done.stderr
        assert "device library missing" in done.stdout + done.stderr
