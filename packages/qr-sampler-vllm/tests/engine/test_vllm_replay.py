# SPDX-License-Identifier: Apache-2.0
"""Requests that are made again get the blocks that were recorded for them, and the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

REQUESTS = 16
TOKENS = 16


class Recorded(NamedTuple):
    """A run that was recorded with the bytes of its draws."""

    ledger: Path
    tokens: dict[str, list[int]]


def requests(count: int = REQUESTS) -> list[dict[str, Any]]:
    """Returns requests that differ in their prompts, filters, amplifiers and lengths."""
    return [
        {
            "key": f"request {number}",
            "prompt": ["Light is", "A", "The sea"][number % 3],
            "extra": {
                "qr_request_key": f"request {number}",
                "qr_top_k": [0, 50, 5][number % 3],
                "qr_temperature_strategy": ["fixed", "edt"][number % 2],
                "qr_signal_amplifier_type": ["zscore_mean", "exact_sum"][number % 2],
                "qr_sample_count": [256, 1024][number % 2],
            },
            "tokens": TOKENS + number % 5,
        }
        for number in range(count)
    ]


def generated(engine: Any, asked: list[dict[str, Any]], env: dict[str, str]) -> dict[str, Any]:
    task = {
        "prompts": [each["prompt"] for each in asked],
        "extra_args": [each["extra"] for each in asked],
        "params": {
            each["key"]: {"max_tokens": each["tokens"], "ignore_eos": True} for each in asked
        },
        # Not all of them at once, so that others share their steps.
        "engine": {"max_num_seqs": 6},
    }
    outputs, _ = engine.generate(task, env)
    keys = [each["key"] for each in asked]
    return dict(zip(keys, (output["token_ids"] for output in outputs), strict=True))


@pytest.fixture(scope="module")
def recorded(offline_engine: Callable[[str], Any]) -> Recorded:
    engine = offline_engine("v1")
    tokens = generated(engine, requests(), {"QR_LEDGER_BLOCKS": "true"})
    return Recorded(engine.ledger, tokens)


@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_a_run_is_replayed_token_by_token(
    runner: str, recorded: Recorded, offline_engine: Callable[[str], Any]
) -> None:
    engine = offline_engine(runner)
    env = {"QR_ENTROPY_SOURCE_TYPE": "replay", "QR_REPLAY_LEDGER": str(recorded.ledger)}
    again = generated(engine, requests()[::-1], env)
    assert again == recorded.tokens
    assert sum(map(len, again.values())) >= REQUESTS * TOKENS
    genesis, *lines = engine.lines()
    assert [source["jit_class"] for source in genesis["sources"]] == ["P"]
    sources = {line["source"] for line in lines if line["kind"] == "token"}
    assert sources == {"replay"}
