# SPDX-License-Identifier: Apache-2.0
"""What is emitted is what is recorded, whatever vLLM does with a request in between.

Chunked prefill, preemption, several samples of one request, stop strings and aborts meet in one
engine, with and without asynchronous scheduling. Two of them are then held against the contract of
hosts, so that no engine has to start for that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.records.files import ledgers_in
from qr_sampler.records.sidecars import PROMPTS_SUFFIX, prompt_digest
from qr_sampler.testing import chained_lines

CHUNK_TOKENS = 16
LONG_PROMPT_CHUNKS = 5

SERVE = """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind
    import qr_sampler_vllm

    llm = engine(block_size=32, disable_log_stats=False)
    engine = llm.llm_engine
    for key, request in task["requests"].items():
        params = SamplingParams(
            extra_args={"qr_request_key": key, "qr_sample_count": 64, **request.get("extra", {})},
            output_kind=RequestOutputKind.CUMULATIVE,
            **request["params"],
        )
        prompt = request.get("text") or {"prompt_token_ids": task["prompts"][key]}
        engine.add_request(key, prompt, params)
    seen, aborted = {}, set()
    while engine.has_unfinished_requests():
        for output in engine.step():
            samples = seen.setdefault(output.request_id, {})
            for sample in output.outputs:
                samples[sample.index] = list(sample.token_ids)
        for key, request in task["requests"].items():
            count = len(seen.get(key, {}).get(0, ()))
            if key not in aborted and count >= request.get("abort_at", 10**9):
                aborted.add(key)
                engine.abort_request([key])
    preemptions = sum(
        metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions"
    )
    asynchronous = engine.vllm_config.scheduler_config.async_scheduling
    contract = None
    if task["contract"]:
        sys.path.insert(0, task["contract"])
        from hosts_in_vllm import findings

        contract = findings(llm, late_steps=int(asynchronous))
    result({
        "contract": contract,
        "outputs": {key: list(samples.values()) for key, samples in seen.items()},
        "aborted": sorted(aborted),
        "preemptions": preemptions,
        "asynchronous": bool(asynchronous),
    })
"""

HELD_AGAINST_THE_CONTRACT = {("v1", True), ("v2", False)}
"""Engines that are then held against the contract of hosts: each runner and each way of scheduling
once. It takes 3 seconds, and 6 where Triton is interpreted."""

ENDLESS = {"max_tokens": 60, "ignore_eos": True, "temperature": 1.0}
REQUESTS: dict[str, dict[str, Any]] = {
    "long prompt": {"prompt_tokens": CHUNK_TOKENS * LONG_PROMPT_CHUNKS, "params": ENDLESS},
    "four samples": {"prompt_tokens": 9, "params": {**ENDLESS, "n": 4}},
    "aborted early": {"prompt_tokens": 7, "params": ENDLESS, "abort_at": 3},
    "aborted late": {"prompt_tokens": 7, "params": ENDLESS, "abort_at": 37},
    "stop string": {"prompt_tokens": 5, "params": {**ENDLESS, "stop": ["e"]}},
    "kept stop string": {
        "prompt_tokens": 5,
        "params": {**ENDLESS, "stop": ["a", "th"], "include_stop_str_in_output": True},
    },
    "late stop string": {"prompt_tokens": 5, "params": {**ENDLESS, "stop": ["e"], "min_tokens": 9}},
    "stop token": {
        "prompt_tokens": 5,
        "params": {**ENDLESS, "allowed_token_ids": [300, 301, 302], "stop_token_ids": [301]},
    },
    "end of text": {
        "prompt_tokens": 5,
        "params": {**ENDLESS, "ignore_eos": False, "allowed_token_ids": [0, 300, 301, 302]},
    },
    "model length": {"prompt_tokens": 230, "params": {**ENDLESS, "max_tokens": 200}},
    "greedy": {"prompt_tokens": 5, "params": {**ENDLESS, "temperature": 0.0}},
    "text": {"text": "Light is both a wave", "params": {**ENDLESS, "max_tokens": 3}},
}


def prompt_of(key: str, model: Path) -> list[int]:
    """Returns the token ids of a request's prompt, no two of which are the same."""
    if "text" in REQUESTS[key]:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model)
        ids: list[int] = tokenizer.encode(REQUESTS[key]["text"])
        return ids
    first = 300 - list(REQUESTS).index(key)
    return list(range(first, first + REQUESTS[key]["prompt_tokens"]))


class Served:
    """What became of the requests, and the ledger."""

    def __init__(
        self, engine: Any, draws_on_file: Any, asynchronous: bool, *, contract: bool
    ) -> None:
        task = {
            "requests": REQUESTS,
            "prompts": {key: prompt_of(key, engine.model) for key in REQUESTS},
            "overlapping": asynchronous,
            "contract": str(Path(__file__).parent) if contract else "",
            "engine": {
                "max_num_batched_tokens": CHUNK_TOKENS * 2,
                "max_num_seqs": 8,
                "enable_chunked_prefill": True,
                "num_gpu_blocks_override": 14,
                "enable_prefix_caching": False,
            },
        }
        self.prompts: dict[str, list[int]] = task["prompts"]
        env = {**draws_on_file.recording(), "QR_LEDGER_PROMPTS": "true"}
        result = engine.result(SERVE, task, env)
        self.ledger: Path = engine.ledger
        self.outputs: dict[str, list[list[int]]] = result["outputs"]
        self.preemptions: int = result["preemptions"]
        self.asynchronous: bool = result["asynchronous"]
        self.aborted: list[str] = result["aborted"]
        self.contract: dict[str, Any] | None = result["contract"]
        self.lines: list[dict[str, Any]] = engine.lines()
        self.drawn_bytes = sum(map(len, draws_on_file.draws()))

    def recorded(self, key: str, *, certain: bool = True) -> list[list[int]]:
        """The tokens of every sequence of a request, as the ledger has them.

        Those that may not have been emitted are left out where only *certain* ones are asked for.
        """
        sequences: dict[str, list[tuple[int, bool]]] = {}
        for line in self.lines:
            if line.get("request_key") != key:
                continue
            tokens = sequences.setdefault(line["sequence"], [])
            if line["kind"] == "token":
                assert line["position"] == len(tokens), "records are not in order"
                tokens.append((line["token_id"], line["emitted"] is True))
            elif line["kind"] == "emission":
                assert tokens[line["position"]] == (line["token_id"], False)
                del tokens[line["position"]]
                if line["emitted"]:
                    tokens.insert(line["position"], (line["token_id"], True))
        return [
            [token_id for token_id, known in tokens if known or not certain]
            for tokens in sequences.values()
        ]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["in turn", "overlapping"])
@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_records_are_the_emitted_tokens(
    offline_engine: Callable[[str], Any], draws_on_file: Any, runner: str, asynchronous: bool
) -> None:
    contract = (runner, asynchronous) in HELD_AGAINST_THE_CONTRACT
    served = Served(offline_engine(runner), draws_on_file, asynchronous, contract=contract)
    assert served.asynchronous is asynchronous
    assert served.preemptions > 0, "nothing was preempted, so this shows less than it should"
    assert served.aborted == ["aborted early", "aborted late"]
    for key in REQUESTS.keys() - set(served.aborted):
        assert sorted(served.recorded(key)) == sorted(served.outputs[key]), key
        assert served.recorded(key, certain=False) == served.recorded(key), key
    for key in served.aborted:
        assert_holds(served, key, most=2 if asynchronous else 0)
    assert len(served.recorded("four samples")) == 4
    assert len(served.recorded("model length")[0]) == 26
    assert len(served.recorded("stop token")[0]) < 60
    assert_accounted(served)
    assert_prompts(served)
    reasons = {line["reason"] for line in served.lines if line["kind"] == "discard"}
    assert reasons <= {"not_emitted", "after_stop", "dropped_on_resumption"}
    if contract:
        assert_fulfilled(served.contract)


def assert_fulfilled(found: dict[str, Any] | None) -> None:
    """The engine does what every host has to do."""
    assert found is not None
    assert found["failed"] == {}, "\n".join(found["failed"].values())
    assert len(found["passed"]) > 20


def assert_prompts(served: Served) -> None:
    """Every sequence has its client's prompt once, chunked or preempted as it may have been."""
    (ledger,) = ledgers_in(served.ledger)
    sidecar = ledger.with_name(ledger.stem + PROMPTS_SUFFIX)
    salt, *prompts = [json.loads(line) for line in sidecar.read_bytes().splitlines()]
    lines = chained_lines(ledger)
    sequences = {line["sequence"]: line for line in lines if line["kind"] == "sequence"}
    assert sorted(sequences) == sorted(prompt["sequence"] for prompt in prompts)
    for prompt in prompts:
        assert prompt["token_ids"] == served.prompts[prompt["request_key"]], prompt["request_key"]
        line = sequences[prompt["sequence"]]
        digest = prompt_digest(bytes.fromhex(salt["salt"]), served.prompts[line["request_key"]])
        assert line["prompt_digest"] == digest
        assert line["prompt_tokens"] == len(prompt["token_ids"])
    (model,) = [line for line in lines if line["kind"] == "model"]
    assert model["name"] == lines[0]["model"]
    assert "/" not in model["name"]
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(model["files"])


def assert_holds(served: Served, key: str, most: int) -> None:
    """The ledger has all that the client has, and may have tokens that were on the way."""
    (emitted,), (certain,) = served.outputs[key], served.recorded(key)
    (all_tokens,) = served.recorded(key, certain=False)
    assert certain == emitted[: len(certain)]
    assert emitted == all_tokens[: len(emitted)]
    assert len(all_tokens) - len(certain) == most


def assert_accounted(served: Served) -> None:
    spent = [line for line in served.lines if line["kind"] in ("token", "discard")]
    assert sum(line["block_bytes"] for line in spent) == served.drawn_bytes
