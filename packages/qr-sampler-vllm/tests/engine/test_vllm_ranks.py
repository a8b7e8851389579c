# SPDX-License-Identifier: Apache-2.0
"""Several ranks: one of them draws, and all force the same token."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")

from qr_sampler_vllm.engine.tensor_parallel import TensorParallelGroup, force_where_told  # noqa: E402


class ThreadGroup:
    """The ranks of a group as threads of this process."""

    def __init__(self, size: int) -> None:
        self.world_size = size
        self._barrier = threading.Barrier(size, timeout=300)
        self._tensor: Any = None

    def rank(self, number: int) -> Any:
        group = self

        class Rank:
            rank_in_group = number
            world_size = group.world_size

            def broadcast(self, input_: Any, src: int = 0) -> Any:
                if number == src:
                    group._tensor = input_.clone()
                group._barrier.wait()
                input_.copy_(group._tensor)
                group._barrier.wait()
                return input_

        return TensorParallelGroup(Rank())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_ranks_force_what_the_first_has_forced(dtype: Any) -> None:
    group = ThreadGroup(2)
    ranks = [group.rank(number) for number in range(2)]
    assert [rank.leads for rank in ranks] == [True, False]
    logits = torch.randn(5, 11, dtype=dtype)
    before = logits.clone()
    follower = threading.Thread(target=ranks[1].hear, args=(logits,))
    follower.start()
    ranks[0].tell(before, {0: 3, 2: 10, 4: 0})
    follower.join(timeout=300)
    assert not follower.is_alive()
    for line, token_id in ((0, 3), (2, 10), (4, 0)):
        expected = torch.full((11,), -torch.inf, dtype=dtype)
        expected[token_id] = 0.0
        assert torch.equal(logits[line], expected)
    assert torch.equal(logits[[1, 3]], before[[1, 3]])


def test_a_row_of_no_number_is_left_alone() -> None:
    logits = torch.full((2, 4), torch.nan)
    force_where_told(logits, torch.tensor([-1, 2]))
    assert torch.isnan(logits[0]).all()
    assert logits[1].tolist() == [-torch.inf, -torch.inf, 0.0, -torch.inf]


WATCH = """
    import json, os
    from qr_sampler_vllm.engine import tensor_parallel

    def watch():
        directory = os.environ.get("QR_TEST_RANKS")
        if directory is None:
            return

        def note(tokens):
            with open(os.path.join(directory, str(os.getpid())), "a") as file:
                file.write(json.dumps(tokens) + "\\n")

        force = tensor_parallel.force_where_told
        tell = tensor_parallel.TensorParallelGroup.tell

        def noted_force(logits, told):
            force(logits, told)
            note(logits.argmax(dim=1).tolist())

        def noted_tell(self, logits, tokens):
            tell(self, logits, tokens)
            note(logits.argmax(dim=1).tolist())

        tensor_parallel.force_where_told = noted_force
        tensor_parallel.TensorParallelGroup.tell = noted_tell
"""
"""A plugin of vLLM for the test alone: every rank writes down the forced token of every row."""

RANKS = 2
TOKENS = 125
TOKENS_OF = {"v1": TOKENS, "v2": 40}
"""An interpreter runs the kernels of Model Runner V2 here, which takes its time for each token."""
KEYS = ("a", "b", "c", "d")
BLOCK_BYTES = 10_240


def params_of(count: int) -> dict[str, dict[str, Any]]:
    return {key: {"max_tokens": count, "ignore_eos": True} for key in KEYS}


def test_two_ranks_make_the_text_of_one(
    offline_engine: Callable[..., Any], draws_on_file: Any, site: Any, tmp_path: Path
) -> None:
    """In float32 the same draws give the same text, token by token on both ranks."""
    site.install("qr_watch", WATCH, {"vllm.general_plugins": "qr_watch = qr_watch:watch"})
    task: dict[str, Any] = {
        "prompts": ["Light is"] * len(KEYS),
        "extra_args": [{"qr_request_key": key} for key in KEYS],
        "params": params_of(TOKENS),
    }
    # Always the same bytes make the comparison of texts repeatable.
    stream = random.Random(20).randbytes(BLOCK_BYTES * len(KEYS) * TOKENS)
    expected, of_one = offline_engine("v1").generate(task, draws_on_file.replaying(stream))
    assert_one_record_per_token(expected, of_one, TOKENS)
    task["engine"] = {"tensor_parallel_size": RANKS, "distributed_executor_backend": "mp"}
    for runner, count in TOKENS_OF.items():
        task["params"] = params_of(count)
        ranks = tmp_path / runner
        ranks.mkdir()
        variables = {
            **draws_on_file.replaying(stream),
            "QR_TEST_RANKS": str(ranks),
            "VLLM_CPU_OMP_THREADS_BIND": "0|1",
        }
        outputs, lines = offline_engine(runner).generate(task, variables)
        assert_one_record_per_token(outputs, lines, count)
        assert_same_but_for_rounding(lines, of_one, count)
        assert len(draws_on_file.processes()) == 1
        notes = [file.read_text().splitlines() for file in ranks.iterdir()]
        assert len(notes) == RANKS
        assert notes[0] == notes[1]
        assert sum(len(json.loads(step)) for step in notes[0]) >= len(KEYS) * count


SAMPLED = """
    import json, os

    def watch():
        directory = os.environ.get("QR_TEST_RANKS")
        if directory is None:
            return
        from vllm.v1.sample.sampler import Sampler

        forward = Sampler.forward

        def noted(self, *arguments, **options):
            output = forward(self, *arguments, **options)
            with open(os.path.join(directory, str(os.getpid())), "a") as file:
                file.write(json.dumps(output.sampled_token_ids.tolist()) + "\\n")
            return output

        Sampler.forward = noted
"""
"""Likewise: every rank writes down the token that vLLM has sampled in every row."""


def test_ranks_sample_the_same_where_tokens_are_left_to_vllm(
    offline_engine: Callable[..., Any], site: Any, tmp_path: Path
) -> None:
    """Steps that the plugin decides whole come before those that it leaves to vLLM."""
    site.install("qr_sampled", SAMPLED, {"vllm.general_plugins": "qr_sampled = qr_sampled:watch"})
    requests: list[dict[str, Any]] = [{"qr_request_key": "ours"}, {"qr_bypass": 1}]
    task: dict[str, Any] = {
        "prompts": ["Light is"] * len(requests),
        "extra_args": requests,
        "params": {"ours": {"temperature": 1.0}},
        "engine": {
            "tensor_parallel_size": RANKS,
            "distributed_executor_backend": "mp",
            "max_num_seqs": 1,
        },
    }
    variables = {
        "PYTHONPATH": str(site.directory),
        "QR_TEST_RANKS": str(tmp_path),
        "VLLM_CPU_OMP_THREADS_BIND": "0|1",
    }
    outputs, _ = offline_engine("v1").generate(task, variables)
    tokens = [token_id for output in outputs for token_id in output["token_ids"]]
    notes = [file.read_text().splitlines() for file in tmp_path.iterdir() if file.is_file()]
    assert len(notes) == RANKS
    for steps in notes:
        assert [json.loads(step) for step in steps[-len(tokens) :]] == [[[t]] for t in tokens]


def assert_same_but_for_rounding(
    found: list[dict[str, Any]], expected: list[dict[str, Any]], count: int
) -> None:
    """The first *count* records of each request agree, unless a u lies between two cumulative sums.

    Two ranks add up in another order than one, so a u in a few thousand falls between the sums of
    one and of the other; what follows then has another history.
    """
    whole = 0
    for key in KEYS:
        pairs = list(zip(tokens_of(found, key), tokens_of(expected, key)[:count], strict=True))
        agreeing = 0
        for line, other in pairs:
            assert line["u"] == other["u"]
            for name in ("temperature", "entropy_nats", "varentropy_nats2"):
                assert line[name] == pytest.approx(other[name], rel=1e-4), (key, agreeing)
            if line["token_id"] != other["token_id"]:
                assert_neighbours(line, other)
                break
            assert line["probability"] == pytest.approx(other["probability"], rel=1e-4)
            agreeing += 1
        whole += agreeing == count
    assert whole >= len(KEYS) // 2, "rounding explains a difference in a few thousand tokens"


def assert_neighbours(line: dict[str, Any], other: dict[str, Any]) -> None:
    """The same u, in all but the same distribution, chose tokens next to each other.

    Of neighbouring ranks it lies below the sum up to the first in one distribution, and not below
    it in the other. On one rank, two tokens of the same probability have changed places.
    """
    apart = abs(line["rank"] - other["rank"])
    assert apart <= 1, (line, other)
    if apart == 0:
        assert line["probability"] == pytest.approx(other["probability"], rel=1e-4)


def tokens_of(lines: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == "token" and line["request_key"] == key]


PIPELINE = """
    def prepare():
        from vllm.distributed import get_pp_group
        from vllm.v1.worker.cpu_model_runner import CPUModelRunner

        load = CPUModelRunner.load_model

        def load_and_prepare(self, *arguments, **options):
            load(self, *arguments, **options)
            if not get_pp_group().is_first_rank:
                self.intermediate_tensors = self.model.make_empty_intermediate_tensors(
                    batch_size=self.max_num_tokens, dtype=self.dtype, device=self.device
                )

        CPUModelRunner.load_model = load_and_prepare
"""
"""A plugin of vLLM for the test alone: on the CPU vLLM makes no buffer for the second stage,
which on an accelerator its profiling run makes."""


def test_only_the_last_stage_of_a_pipeline_draws(
    offline_engine: Callable[..., Any], draws_on_file: Any, site: Any
) -> None:
    site.install("qr_stages", PIPELINE, {"vllm.general_plugins": "qr_stages = qr_stages:prepare"})
    task: dict[str, Any] = {
        "prompts": ["Light is"] * len(KEYS),
        "extra_args": [{"qr_request_key": key} for key in KEYS],
        "params": params_of(TOKENS),
        "engine": {"pipeline_parallel_size": 2, "distributed_executor_backend": "mp"},
    }
    variables = {**draws_on_file.recording(), "VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    outputs, lines = offline_engine("v1").generate(task, variables)
    assert_one_record_per_token(outputs, lines, TOKENS)
    assert len(draws_on_file.processes()) == 1


def assert_one_record_per_token(
    outputs: list[dict[str, Any]], lines: list[dict[str, Any]], count: int
) -> None:
    tokens = [line for line in lines if line["kind"] == "token"]
    for key, output in zip(KEYS, outputs, strict=True):
        mine = [line for line in tokens if line["request_key"] == key]
        assert [line["position"] for line in mine] == list(range(count))
        assert [line["token_id"] for line in mine] == output["token_ids"]
    assert len({line["sequence"] for line in tokens}) == len(KEYS)
