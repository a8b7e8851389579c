# SPDX-License-Identifier: Apache-2.0
"""The model that the benchmark of drafting grows, and what it makes of its measurements."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")
transformers = pytest.importorskip(
    "transformers", reason="needs transformers, which the vllm session installs"
)

PACKAGE = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "benchmarks").exists(),
    reason="benchmarks are not part of the source distribution",
)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, importable from where its page runs it."""
    from importlib import import_module

    monkeypatch.syspath_prepend(str(PACKAGE))
    return SimpleNamespace(
        grown=import_module("benchmarks.grown_model").grown,
        drafting=import_module("benchmarks.tsd_drafting"),
        engines=import_module("benchmarks.tsd_engines"),
    )


def test_a_grown_model_says_what_the_small_one_says(benchmark: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = transformers.Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    small = transformers.Qwen2ForCausalLM(config).eval()
    small.save_pretrained(tmp_path / "small")
    count = benchmark.grown(tmp_path / "small", tmp_path / "grown", 100_000)
    assert count >= 100_000
    large = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "grown").eval()
    tokens = torch.randint(50, (3, 20))
    with torch.no_grad():
        assert torch.allclose(large(tokens).logits, small(tokens).logits, atol=1e-5)
    # It is not the same model: what was added is read and multiplied.
    assert sum(each.numel() for each in large.parameters()) == count
    width = large.config.intermediate_size
    assert width > 24
    assert large.model.layers[0].mlp.up_proj.weight[24:].abs().min() > 0


def found(benchmark: Any, speeds: dict[str, float]) -> list[Any]:
    workloads = benchmark.engines.WORKLOADS
    return [
        benchmark.drafting.Found(
            contender, workload.name, batch, 1.5, speeds.get(contender.mode, 1.0)
        )
        for contender in benchmark.engines.CONTENDERS
        for workload in workloads
        for batch in benchmark.drafting.BATCHES
        if contender.does(workload)
    ]


def test_the_table_has_a_row_for_every_engine(benchmark: Any) -> None:
    lines = list(benchmark.drafting.table(found(benchmark, {})))
    assert len(lines) == 2 + len(benchmark.engines.CONTENDERS)
    (ours,) = (line for line in lines if "vLLM's n-gram" in line)
    assert ours.count("| -") == 2


@pytest.mark.parametrize(
    ("speeds", "status"),
    [
        ({"exact_match": 1.1, "canonical": 1.2}, 0),
        ({"exact_match": 0.9, "canonical": 1.2}, 1),
        ({"exact_match": 1.1, "canonical": 1.0}, 1),
    ],
)
def test_both_modes_have_to_save_time_somewhere(
    benchmark: Any, speeds: dict[str, float], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.drafting.check(found(benchmark, speeds)) == status
    assert ("MISSED" in capsys.readouterr().out) is bool(status)
