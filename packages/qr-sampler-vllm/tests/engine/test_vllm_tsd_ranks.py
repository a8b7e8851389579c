# SPDX-License-Identifier: Apache-2.0
"""Drafts of two tensor-parallel ranks under Model Runner V2."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

TOKENS = 24
BLOCK_BYTES = 64
KEYS = ("a", "b")
DRAFTS = 3


def test_two_ranks_draft_and_choose_as_one(
    offline_engine: Callable[..., Any], draws_on_file: Any
) -> None:
    """The same bytes make the same text and the same records, whatever the number of ranks."""
    task: dict[str, Any] = {
        "prompts": ["Light is"] * len(KEYS),
        "extra_args": [{"qr_request_key": key, "qr_sample_count": BLOCK_BYTES} for key in KEYS],
        "params": {
            key: {"max_tokens": TOKENS, "ignore_eos": True, "allowed_token_ids": [0, 300]}
            for key in KEYS
        },
        "engine": {
            "worker_cls": "qr_sampler_vllm.tsd.worker.TSDCPUWorker",
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": DRAFTS,
                "prompt_lookup_max": 3,
                "prompt_lookup_min": 1,
            },
        },
    }
    stream = random.Random(20).randbytes(BLOCK_BYTES * len(KEYS) * TOKENS * (1 + DRAFTS))
    own = {"QR_TSD_PROPOSER": "ngram"}
    expected, of_one = offline_engine("v2").generate(
        task, {**draws_on_file.replaying(stream), **own}
    )
    task["engine"] |= {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    own["VLLM_CPU_OMP_THREADS_BIND"] = "0|1"
    outputs, of_two = offline_engine("v2").generate(
        task, {**draws_on_file.replaying(stream), **own}
    )
    assert outputs == expected
    assert decisions(of_two) == decisions(of_one)
    assert len(draws_on_file.processes()) == 1
    steps = Counter(line["t_request_ns"] for line in of_two if line["kind"] == "token")
    # Of two tokens that are allowed, drafts are right every other time.
    assert len(steps) < 0.8 * TOKENS


def decisions(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (line["request_key"], line["position"], line["token_id"], line["u"], line["rank"])
        for line in lines
        if line["kind"] == "token"
    ]
