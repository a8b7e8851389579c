# SPDX-License-Identifier: Apache-2.0
"""Speculative decoding under Model Runner V2: the text is that of sequential decoding."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import pytest

BLOCK_BYTES = 64
TOKENS = 60
SPECULATED = 3
SPECULATION = {
    "method": "ngram",
    "num_speculative_tokens": SPECULATED,
    "prompt_lookup_max": 3,
    "prompt_lookup_min": 1,
}

FEW = {"allowed_token_ids": [0, 300, 301], "temperature": 1.0}
"""Of few tokens n-grams are guessed right often, and wrong as often."""
REQUESTS: dict[str, dict[str, Any]] = {
    "long": {**FEW, "max_tokens": TOKENS, "ignore_eos": True},
    "drifting": {**FEW, "max_tokens": TOKENS, "ignore_eos": True},
    "short": {**FEW, "max_tokens": 10, "ignore_eos": True},
    "end of text": {**FEW, "max_tokens": TOKENS},
    "stop string": {**FEW, "max_tokens": TOKENS, "ignore_eos": True, "stop": ["z", "9"]},
}
DRIFTING = {
    "qr_temperature_strategy": "varentropy",
    "qr_varentropy_base_temp": 0.8,
    "qr_varentropy_drift_weight": 0.5,
    "qr_varentropy_drift_rate": 0.25,
}


def task_of(keys: Iterable[str]) -> dict[str, Any]:
    keys = list(keys)
    own = {"drifting": DRIFTING}
    return {
        "prompts": ["Light is"] * len(keys),
        "extra_args": [
            {"qr_request_key": key, "qr_sample_count": BLOCK_BYTES, **own.get(key, {})}
            for key in keys
        ],
        "params": {key: REQUESTS[key] for key in keys},
    }


class Speculated:
    """What an engine with drafts emitted, drew and recorded."""

    def __init__(self, engine: Any, draws_on_file: Any, method: str) -> None:
        task = task_of(REQUESTS)
        stand_in = "ngram_gpu" if method == "tsd" else method
        task["engine"] = {
            "speculative_config": {**SPECULATION, "method": stand_in},
            # vLLM overlaps steps only where drafts are made on the device.
            "async_scheduling": stand_in == "ngram_gpu",
        }
        own = {}
        if method == "tsd":
            task["engine"]["worker_cls"] = "qr_sampler_vllm.tsd.worker.TSDCPUWorker"
            own = {"QR_TSD_PROPOSER": "ngram"}
        # Always the same bytes, so that drafts are accepted and rejected alike every time.
        largest = BLOCK_BYTES * TOKENS * len(REQUESTS) * (1 + SPECULATED)
        stream = random.Random(20).randbytes(largest)
        outputs, self.lines = engine.generate(task, {**draws_on_file.replaying(stream), **own})
        self.outputs = dict(zip(REQUESTS, outputs, strict=True))
        self.draws: list[bytes] = draws_on_file.draws()

    def tokens(self, key: str) -> list[dict[str, Any]]:
        return [
            line for line in self.lines if line["kind"] == "token" and line["request_key"] == key
        ]

    def consumed(self, key: str) -> bytes:
        """The blocks that decided the tokens of a request, found again by their sums.

        Blocks of the same sum are interchangeable: the sum alone decides u.
        """
        order = sorted({line["t_request_ns"] for line in self.lines if "t_request_ns" in line})
        assert len(order) == len(self.draws)
        draw_of = dict(zip(order, self.draws, strict=True))
        return b"".join(
            block_of_sum(draw_of[line["t_request_ns"]], line["block_sum"])
            for line in self.tokens(key)
        )


def block_of_sum(draw: bytes, total: int) -> bytes:
    blocks = [draw[start : start + BLOCK_BYTES] for start in range(0, len(draw), BLOCK_BYTES)]
    return next(block for block in blocks if sum(block) == total)


@pytest.mark.parametrize("method", ["ngram", "tsd"])
def test_drafts_change_nothing_but_the_number_of_steps(
    offline_engine: Callable[[str], Any], draws_on_file: Any, method: str
) -> None:
    speculated = Speculated(offline_engine("v2"), draws_on_file, method)
    for key, output in speculated.outputs.items():
        tokens = speculated.tokens(key)
        assert [line["token_id"] for line in tokens] == output["token_ids"], key
        assert [line["position"] for line in tokens] == list(range(len(tokens))), key
    assert len(speculated.tokens("long")) == TOKENS
    assert len(speculated.tokens("short")) == 10
    told = speculated.lines[0]["settings"].get("tsd")
    assert (told and told["proposer"][0]["name"]) == ("ngram" if method == "tsd" else None)
    outcomes = {line["outcome"] for line in speculated.lines if line["kind"] == "token"}
    assert outcomes == ({"accepted", "corrected", "bonus"} if method == "tsd" else {None})
    assert_accounted(speculated)
    assert_several_tokens_in_one_step(speculated.tokens("long"))
    keys = ["long", "drifting"]
    # One request after the other, each with the bytes that decided its tokens above.
    task = {**task_of(keys), "engine": {"max_num_seqs": 1}}
    stream = b"".join(map(speculated.consumed, keys))
    outputs, lines = offline_engine("v2").generate(task, draws_on_file.replaying(stream))
    assert outputs == [speculated.outputs[key] for key in keys]
    for key in keys:
        sequential = [line for line in lines if line.get("request_key") == key]
        assert_same_decisions(speculated.tokens(key), sequential)


def assert_accounted(speculated: Speculated) -> None:
    """Bytes drawn are bytes in records and bytes in discards."""
    discards = [line for line in speculated.lines if line["kind"] == "discard"]
    tokens = [line for line in speculated.lines if line["kind"] == "token"]
    spent = sum(line["block_bytes"] for line in tokens + discards)
    assert spent == sum(map(len, speculated.draws))
    reasons = {line["reason"] for line in discards}
    assert "rejected_draft" in reasons
    assert reasons <= {"rejected_draft", "after_stop"}


def assert_several_tokens_in_one_step(tokens: list[dict[str, Any]]) -> None:
    by_step = defaultdict(list)
    for line in tokens:
        by_step[line["t_request_ns"]].append(line)
    sizes = {len(lines) for lines in by_step.values()}
    assert max(sizes) == 1 + SPECULATED
    assert len(by_step) < 0.9 * len(tokens)


def assert_same_decisions(found: list[dict[str, Any]], lines: list[dict[str, Any]]) -> None:
    expected = [line for line in lines if line["kind"] == "token"]
    for name in ("token_id", "u", "rank", "candidates"):
        assert [line[name] for line in found] == [line[name] for line in expected]
    for name in ("temperature", "probability"):
        pairs = [(line[name], other[name]) for line, other in zip(found, expected, strict=True)]
        assert [a for a, _ in pairs] == pytest.approx([b for _, b in pairs], rel=1e-4)


def test_drafts_that_are_accepted_whatever_was_chosen_are_refused(
    offline_engine: Callable[[str], Any],
) -> None:
    engine = offline_engine("v2")
    synthetic = {
        **SPECULATION,
        "rejection_sample_method": "synthetic",
        "synthetic_acceptance_rates": [0.5, 0.5, 0.5],
    }
    task = {**task_of(["short"]), "engine": {"speculative_config": synthetic}}
    done = engine.script(engine.generate_script, task)
    assert done.returncode != 0
    assert "rejection_sample_method='synthetic'" in done.stdout + done.stderr
