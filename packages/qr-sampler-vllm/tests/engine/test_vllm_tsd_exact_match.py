# SPDX-License-Identifier: Apache-2.0
"""Exact match: the text is that of an engine without drafts for the same bytes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BLOCK_BYTES = 64
TOKENS = 60
FEW = [0, 300, 301]
"""Of few tokens drafts are right often, and wrong as often."""

GENERATE = """
    llm = engine()
    params = [parameters(request) for request in task["requests"].values()]
    readers = set()
    # Without drafts vLLM draws numbers to choose among one token.
    with no_other_entropy(readers) if "worker_cls" in task["engine"] else nullcontext():
        outputs = llm.generate(["Light is"] * len(params), params, use_tqdm=False)
    qr_sampler_vllm.flush_records()
    found = {}
    for key, output in zip(task["requests"], outputs):
        (sample,) = output.outputs
        found[key] = {"token_ids": list(sample.token_ids), "text": sample.text}
        if sample.logprobs is not None:
            found[key]["logprobs"] = [
                sorted((token, one.rank, one.logprob) for token, one in place.items())
                for place in sample.logprobs
            ]
    config = llm.llm_engine.vllm_config
    result({
        "outputs": found,
        "readers": sorted(readers),
        "asynchronous": bool(config.scheduler_config.async_scheduling),
    })
"""


def requests(texts: Callable[[int], str]) -> dict[str, dict[str, Any]]:
    """Requests of all kinds. *texts* returns the text of a token."""
    ordinary = {"allowed_token_ids": FEW, "max_tokens": TOKENS, "ignore_eos": True}
    more = {**ordinary, "allowed_token_ids": [*FEW, 302, 303]}
    drifting = {
        "qr_temperature_strategy": "varentropy",
        "qr_varentropy_base_temp": 0.8,
        "qr_varentropy_drift_weight": 0.5,
        "qr_varentropy_drift_rate": 0.25,
    }
    penalties = {
        "repetition_penalty": 1.3,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.05,
    }
    found: dict[str, Any] = {
        "long": {"params": {**ordinary, "logprobs": 2}},
        "certain": {"params": {**ordinary, "allowed_token_ids": FEW[-1:], "max_tokens": 40}},
        "drifting": {"params": ordinary, "extra": drifting},
        "short": {"params": {**ordinary, "max_tokens": 10}},
        "end of text": {"params": {**ordinary, "ignore_eos": False}},
        "late end of text": {"params": {**ordinary, "ignore_eos": False, "min_tokens": 25}},
        "stop string": {"params": {**ordinary, "stop": [texts(300)]}},
        "penalised": {"params": {**more, **penalties}},
        "bad words": {"params": {**more, "bad_words": [texts(301) + texts(301), texts(303)]}},
        "truncated": {"params": more, "extra": {"qr_top_k": 3, "qr_top_p": 0.9}},
        "grammar": {"params": {"max_tokens": 12, "regex": "(a|b|cd){6}"}},
    }
    for key, request in found.items():
        request["extra"] = {
            **request.get("extra", {}),
            "qr_request_key": key,
            "qr_sample_count": BLOCK_BYTES,
        }
    return found


@pytest.fixture
def wanted(tiny_model: Path) -> dict[str, dict[str, Any]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    return requests(lambda token_id: str(tokenizer.decode([token_id])))


def tokens_of(lines: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == "token" and line["request_key"] == key]


def consumed(lines: list[dict[str, Any]], draws: list[bytes], key: str) -> bytes:
    """The blocks that decided the tokens of a request, found again by their sums.

    Blocks of the same sum are interchangeable: the sum alone decides u.
    """
    order = sorted({line["t_request_ns"] for line in lines if "t_request_ns" in line})
    assert len(order) == len(draws), "more than one request per step, or one without a record"
    draw_of = dict(zip(order, draws, strict=True))
    found = []
    for line in tokens_of(lines, key):
        draw = draw_of[line["t_request_ns"]]
        blocks = [draw[at : at + BLOCK_BYTES] for at in range(0, len(draw), BLOCK_BYTES)]
        found.append(next(block for block in blocks if sum(block) == line["block_sum"]))
    return b"".join(found)


def test_the_text_is_that_of_an_engine_without_drafts(
    offline_engine: Callable[[str], Any], draws_on_file: Any, tsd: Any, wanted: dict[str, Any]
) -> None:
    tsd.save({0: 0.05, 300: 0.4, 301: 0.5})
    drafting = offline_engine("v1")
    task = {"requests": wanted, "engine": tsd.options}
    environment = {**draws_on_file.recording(), **tsd.environment("exact_match")}
    drafted = drafting.result(tsd.script(GENERATE), task, environment)
    lines, draws = drafting.lines(), draws_on_file.draws()
    assert drafted["asynchronous"] is False
    # Names of sequences, and what blinds lines of the ledger, are all else that comes from there.
    assert set(drafted["readers"]) <= {"qr_draws", "qr_sampler.records.chain", "uuid"}
    assert_recorded(drafted["outputs"], lines)
    assert_accounted(lines, draws)
    assert_four_tokens_in_a_step(tokens_of(lines, "certain"))
    stream = b"".join(consumed(lines, draws, key) for key in wanted)
    plain = offline_engine("v1")
    # One request after the other, each with the bytes that decided its tokens above.
    task = {"requests": wanted, "engine": {"max_num_seqs": 1}}
    environment = {**tsd.environment("exact_match"), **draws_on_file.replaying(stream)}
    sequential = plain.result(tsd.script(GENERATE), task, environment)
    for key in wanted:
        ours, theirs = drafted["outputs"][key], sequential["outputs"][key]
        assert (ours["token_ids"], ours["text"]) == (theirs["token_ids"], theirs["text"]), key
        assert_same_decisions(tokens_of(lines, key), tokens_of(plain.lines(), key))
    assert sum(map(len, draws_on_file.draws())) == len(stream)
    assert_same_logprobs(drafted["outputs"]["long"], sequential["outputs"]["long"])


def assert_recorded(outputs: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    for key, output in outputs.items():
        tokens = tokens_of(lines, key)
        assert [line["token_id"] for line in tokens] == output["token_ids"], key
        assert [line["position"] for line in tokens] == list(range(len(tokens))), key
        assert all(line["jit"] and line["t_request_ns"] >= line["t_logits_ns"] for line in tokens)
        assert tokens[0]["outcome"] == "bonus"
    found = {line["outcome"] for line in lines if line["kind"] == "token"}
    assert found == {"accepted", "corrected", "bonus"}
    genesis = lines[0]["settings"]["tsd"]
    assert genesis["mode"] == "exact_match"


def assert_accounted(lines: list[dict[str, Any]], draws: list[bytes]) -> None:
    """Bytes drawn are bytes in records and bytes in discards."""
    discards = [line for line in lines if line["kind"] == "discard"]
    tokens = [line for line in lines if line["kind"] == "token"]
    assert sum(line["block_bytes"] for line in tokens + discards) == sum(map(len, draws))
    reasons = {line["reason"] for line in discards}
    assert "rejected_draft" in reasons
    assert reasons <= {"rejected_draft", "after_stop"}


def assert_four_tokens_in_a_step(tokens: list[dict[str, Any]]) -> None:
    """Of one allowed token every draft is right: three stand, and one token follows them."""
    by_step = defaultdict(list)
    for line in tokens:
        by_step[line["t_request_ns"]].append(line["outcome"])
    full = ["accepted", "accepted", "accepted", "bonus"]
    assert [by_step[step] for step in sorted(by_step)] == [["bonus"], *[full] * 9, full[1:]]


def assert_same_decisions(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for name in ("token_id", "u", "rank", "candidates"):
        assert [line[name] for line in found] == [line[name] for line in expected]
    for name in ("temperature", "probability"):
        pairs = zip(found, expected, strict=True)
        assert all(math.isclose(a[name], b[name], rel_tol=1e-4) for a, b in pairs)


def assert_same_logprobs(found: dict[str, Any], expected: dict[str, Any]) -> None:
    pairs = list(zip(found["logprobs"], expected["logprobs"], strict=True))
    assert len(pairs) == TOKENS
    for ours, theirs in pairs:
        assert [(token, rank) for token, rank, _ in ours] == [(t, r) for t, r, _ in theirs]
        assert [p for *_, p in ours] == pytest.approx([p for *_, p in theirs], abs=1e-4)


SERVE = """
    llm = engine()
    served, aborted = serve(llm, task["requests"])
    qr_sampler_vllm.flush_records()
    result({"served": served, "aborted": aborted, "preemptions": preemptions(llm)})
"""

ENDLESS = {"max_tokens": 60, "ignore_eos": True, "allowed_token_ids": FEW}
IN_BETWEEN: dict[str, dict[str, Any]] = {
    "long prompt": {"prompt_tokens": 80, "params": ENDLESS},
    "four samples": {"prompt_tokens": 9, "params": {**ENDLESS, "n": 4}},
    "aborted": {"prompt_tokens": 7, "params": ENDLESS, "abort_at": 10},
    "model length": {"prompt_tokens": 230, "params": {**ENDLESS, "max_tokens": 200}},
    "left to vllm": {"prompt_tokens": 5, "params": ENDLESS, "extra": {"qr_bypass": 1}},
    **{f"crowd {n}": {"prompt_tokens": 5, "params": ENDLESS} for n in range(8)},
}


UNDECIDABLE: dict[str, Any] = {
    "prompt_tokens": 5,
    "params": {
        "max_tokens": 60,
        "ignore_eos": True,
        "allowed_token_ids": [301],
        "stop_token_ids": [301],
        "min_tokens": 4,
    },
}
"""Where a stop token is the only one allowed, nothing is before ``min_tokens``."""


def test_records_are_the_emitted_tokens(
    offline_engine: Callable[[str], Any], draws_on_file: Any, tsd: Any
) -> None:
    """Chunked prefill, preemption, several samples, aborts and a bypass meet in one engine."""
    tsd.save({0: 0.05, 300: 0.4, 301: 0.5})
    options = {
        "max_num_seqs": 16,
        "max_num_batched_tokens": 64,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": False,
        "block_size": 32,
        "num_gpu_blocks_override": 18,
        "disable_log_stats": False,
    }
    requests = {**IN_BETWEEN, "undecidable": UNDECIDABLE}
    for request in requests.values():
        request.setdefault("extra", {})["qr_sample_count"] = BLOCK_BYTES
    task = {"requests": requests, "engine": {**tsd.options, **options}}
    drafting = offline_engine("v1")
    environment = {**tsd.environment("exact_match"), **draws_on_file.recording()}
    found = drafting.result(tsd.script(SERVE), task, environment)
    assert found["preemptions"] > 0, "nothing was preempted, so this shows less than it should"
    assert found["aborted"] == ["aborted"]
    lines = drafting.lines()
    for key in IN_BETWEEN:
        recorded: dict[str, list[int]] = defaultdict(list)
        for line in tokens_of(lines, key):
            assert line["position"] == len(recorded[line["sequence"]]), "records are not in order"
            recorded[line["sequence"]].append(line["token_id"])
        emitted = [tokens for tokens, _ in found["served"][key]]
        expected = [] if key == "left to vllm" else sorted(emitted)
        assert sorted(recorded.values()) == expected, key
    assert found["served"]["undecidable"][0][0] == [0, 0, 0, 0, 301]
    undecided = [
        (line["position"], line["token_id"]) for line in lines if line["kind"] == "undecided"
    ]
    assert undecided == [(position, 0) for position in range(4)]
    assert len(found["served"]["four samples"]) == 4
    assert len(found["served"]["model length"][0][0]) == 26
    assert len(found["served"]["left to vllm"][0][0]) == 60
    assert_accounted(lines, draws_on_file.draws())
