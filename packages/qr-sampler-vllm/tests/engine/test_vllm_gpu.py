# SPDX-License-Identifier: Apache-2.0
"""Real engines on a GPU emit the tokens that their records say."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")

ON_GPU = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")


def needs_vllm_for_cuda() -> None:
    """Skips a test where vLLM was not built for the GPU."""
    platforms = pytest.importorskip("vllm.platforms", reason="needs vLLM")
    if not platforms.current_platform.is_cuda():
        pytest.skip("needs a vLLM that is built for CUDA")


@needs_cuda
@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_an_engine_on_the_gpu_emits_what_the_records_say(offline_engine: Any, runner: str) -> None:
    needs_vllm_for_cuda()
    check_engine(offline_engine(runner))


def check_engine(engine: Any) -> None:
    """Generates on the engine's own device, with requests of every kind in one batch."""
    wishes = [
        {"qr_request_key": "fixed", "qr_fixed_temperature": 0.8},
        {"qr_request_key": "edt", "qr_temperature_strategy": "edt"},
        {"qr_request_key": "filters", "qr_top_k": 20, "qr_top_p": 0.9, "qr_min_p": 0.001},
        {"qr_request_key": "sigma", "qr_top_n_sigma": 2.0, "qr_typical_p": 0.9},
    ]
    task = {
        "prompts": ["The rays of light"] * len(wishes),
        "extra_args": wishes,
        "engine": {"gpu_memory_utilization": 0.2},
    }
    # Without a GPU, Model Runner V2 needs Triton's interpreter; on one it has to be the compiler.
    outputs, lines = engine.generate(task, {"TRITON_INTERPRET": str(int(not ON_GPU))})
    tokens = [line for line in lines if line["kind"] == "token"]
    for wish, output in zip(wishes, outputs, strict=True):
        mine = [line for line in tokens if line["request_key"] == wish["qr_request_key"]]
        assert [line["token_id"] for line in mine] == output["token_ids"]
        assert [line["position"] for line in mine] == list(range(len(mine)))
    assert len(tokens) >= 12
    for line in tokens:
        assert line["t_logits_ns"] <= line["t_request_ns"] <= line["t_received_ns"]
        assert not line["fallback"]
