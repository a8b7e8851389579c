# SPDX-License-Identifier: Apache-2.0
"""The prompts that reach the file beside the ledger, under both model runners."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qr_sampler.host import NumpyLogits
from qr_sampler_vllm.engine import session
from qr_sampler_vllm.runners.v1 import RunnerV1
from qr_sampler_vllm.runners.v2 import RunnerV2
from qr_sampler_vllm.testing import engine_config, sampling_params


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {"LEDGER_DIR": tmp_path, "LEDGER_PROMPTS": "true", "SAMPLE_COUNT": 16}
    for name, value in {**settings, "MAX_KS_DISTANCE": 1}.items():
        monkeypatch.setenv(f"QR_{name}", str(value))
    monkeypatch.setattr(session, "TensorLogits", lambda most_rows: NumpyLogits())
    monkeypatch.setattr(session, "warm_up", lambda **_: None)


def params(key: str) -> Any:
    return sampling_params(max_tokens=9, extra_args={"qr_request_key": key})


def logits() -> Any:
    return np.zeros((1, 16), np.float32)


def written(folder: Path) -> list[tuple[str, list[int]]]:
    sidecars = list(folder.glob("*.prompts.jsonl"))
    lines = [json.loads(line) for path in sidecars for line in path.read_bytes().splitlines()]
    prompts = [line for line in lines if line["kind"] == "prompt"]
    return [(line["request_key"], line["token_ids"]) for line in prompts]


def update(**changes: Any) -> Any:
    return SimpleNamespace(**{"batch_size": 1, "removed": [], "added": [], "moved": [], **changes})


def test_v1_has_a_prompt_once_though_its_request_is_set_back(tmp_path: Path) -> None:
    runner = RunnerV1(engine_config())
    output: list[int] = []
    runner.update_state(update(added=[(0, params("a"), [7, 8, 9], output)]))
    for _ in range(2):
        output.append(int(runner.apply(logits()).argmax()))
        runner.update_state(None)
    runner.flush()
    runner.update_state(update(batch_size=0, removed=[0]))
    runner.update_state(update(added=[(0, params("a"), [7, 8, 9], output)]))
    output.append(int(runner.apply(logits()).argmax()))
    runner.update_state(None)
    runner.close()
    assert written(tmp_path) == [("a", [7, 8, 9])]


def test_v1_has_none_of_embedded_prompts(tmp_path: Path) -> None:
    runner = RunnerV1(engine_config())
    runner.update_state(update(added=[(0, params("a"), None, [])]))
    runner.apply(logits())
    runner.close()
    assert written(tmp_path) == []


class V2Engine:
    """vLLM's side of Model Runner V2, with two slots."""

    def __init__(self, *, embeds: bool = False) -> None:
        self.prompt = np.zeros(2, np.int32)
        self.prefill = np.zeros(2, np.int32)
        self.ids = np.zeros((2, 64), np.int32)
        states = SimpleNamespace(
            max_num_reqs=2,
            prompt_len=SimpleNamespace(np=self.prompt),
            prefill_len=SimpleNamespace(np=self.prefill),
            all_token_ids=SimpleNamespace(gpu=self.ids),
        )
        config = engine_config()
        config.model_config.enable_prompt_embeds = embeds
        self.runner = RunnerV2(config, states)

    def add(self, slot: int, key: str, prompt: list[int], history: list[int] | None = None) -> None:
        tokens = [*prompt, *(history or [])]
        self.prompt[slot], self.prefill[slot] = len(prompt), len(tokens)
        # As in vLLM, they are there a moment later.
        self.ids[slot] = 0
        self.runner.add_request(slot, params(key))
        self.ids[slot, : len(tokens)] = tokens
        self.runner.apply_staged_writes()

    def step(self, slot: int, length: int) -> int:
        context: Any = SimpleNamespace(
            idx_mapping_np=np.array([slot]), seq_lens_upper_bound_np=np.array([length])
        )
        return int(self.runner.apply(logits(), context).argmax())


def test_v2_has_a_prompt_once_though_its_request_is_set_back(tmp_path: Path) -> None:
    engine = V2Engine()
    engine.add(0, "a", [7, 8, 9])
    engine.step(0, 2)
    history = [engine.step(0, 3)]
    engine.runner.flush()
    engine.add(0, "b", [1, 2])
    engine.step(0, 2)
    engine.add(1, "a", [7, 8, 9], history)
    engine.step(1, 4)
    engine.runner.close()
    assert written(tmp_path) == [("a", [7, 8, 9]), ("b", [1, 2])]


@pytest.mark.parametrize("embeds", [False, True])
def test_v2_has_none_of_embedded_prompts(tmp_path: Path, embeds: bool) -> None:
    engine = V2Engine(embeds=embeds)
    engine.add(0, "zeros", [0, 0, 0])
    engine.step(0, 3)
    engine.add(1, "ids", [0, 1, 0])
    engine.step(1, 3)
    engine.runner.close()
    expected = [("zeros", [0, 0, 0]), ("ids", [0, 1, 0])]
    assert written(tmp_path) == expected[embeds:]
