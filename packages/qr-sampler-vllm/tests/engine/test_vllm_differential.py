# SPDX-License-Identifier: Apache-2.0
"""Batch bookkeeping against vLLM's own: random sequences on the real persistent batch of V1."""

from __future__ import annotations

import inspect
import random
from types import SimpleNamespace
from typing import Any

import pytest

vllm = pytest.importorskip("vllm", reason="needs vLLM, which the vllm session installs")
torch = pytest.importorskip("torch")

from vllm import SamplingParams  # noqa: E402
from vllm.v1.sample.logits_processor import (  # noqa: E402
    LogitsProcessors,
    MinPLogitsProcessor,
    process_dict_updates,
)
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch  # noqa: E402

from qr_sampler_vllm.processor import QRSamplerLogitsProcessor  # noqa: E402
from qr_sampler_vllm.runners import v1  # noqa: E402
from qr_sampler_vllm.runners.v1 import RunnerV1, apply_update  # noqa: E402
from qr_sampler_vllm.testing import engine_config  # noqa: E402

MAX_REQUESTS = 9
# vLLM 0.29 asks for the block size of the attention kernel too.
KERNEL_BLOCKS: dict[str, Any] = (
    {"kernel_block_sizes": [16]}
    if "kernel_block_sizes" in inspect.signature(InputBatch).parameters
    else {}
)


class DictMirror:
    """Follows the same updates with the function that vLLM offers to plugin authors."""

    def __init__(self) -> None:
        self.entries: dict[int, str] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, update: Any) -> None:
        process_dict_updates(self.entries, update, lambda params, *_: key_of(params))

    def apply(self, logits: Any) -> Any:
        return logits


def key_of(params: SamplingParams) -> str:
    assert params.extra_args is not None
    return str(params.extra_args["qr_request_key"])


class Batch:
    """vLLM's persistent batch with our processor and two of vLLM's own followers attached."""

    def __init__(self) -> None:
        config = engine_config(max_num_seqs=MAX_REQUESTS)
        self.processor = QRSamplerLogitsProcessor(config, torch.device("cpu"), False)
        self.min_p = MinPLogitsProcessor(config, torch.device("cpu"), False)
        self.mirror = DictMirror()
        self.batch = InputBatch(
            max_num_reqs=MAX_REQUESTS,
            max_model_len=64,
            max_num_batched_tokens=64,
            device=torch.device("cpu"),
            vocab_size=32,
            block_sizes=[16],
            max_num_blocks_per_req=[4],
            logitsprocs=LogitsProcessors([self.processor, self.min_p, self.mirror]),
            **KERNEL_BLOCKS,
        )
        self.requests: dict[str, CachedRequestState] = {}
        self._count = 0

    def add(self) -> None:
        self._count += 1
        key = f"r{self._count}"
        params = SamplingParams(
            min_p=self._count / 10_000, max_tokens=4, extra_args={"qr_request_key": key}
        )
        self.requests[key] = CachedRequestState(
            req_id=key,
            prompt_token_ids=[1, 2, 3],
            mm_features=[],
            sampling_params=params,
            generator=None,
            block_ids=([],),
            num_computed_tokens=0,
            output_token_ids=[],
        )
        self.batch.add_request(self.requests[key])

    def remove(self, key: str) -> None:
        self.batch.remove_request(key)
        del self.requests[key]

    def check(self) -> None:
        """Our rows hold the requests, and the very token lists, that vLLM's rows hold."""
        runner = self.processor._role
        assert isinstance(runner, RunnerV1)
        rows = runner._batch
        expected = dict(enumerate(self.batch.req_ids))
        keys = {line: row.sequence.request_key for line, row in rows.items() if row.sequence}
        assert keys == expected
        assert self.mirror.entries == expected
        for line, key in expected.items():
            assert rows[line].output_token_ids is self.requests[key].output_token_ids
            wanted = self.requests[key].sampling_params.min_p
            assert self.min_p.get_min_p_by_index(line) == pytest.approx(wanted, rel=1e-6)


def follow(seed: int) -> None:
    """Runs 25 steps that remove, add, condense and swap in the order of vLLM's model runner."""
    chance = random.Random(seed)
    batch = Batch()
    for _ in range(25):
        keys = list(batch.requests)
        leaving = chance.randint(0, len(keys)) if chance.random() < 0.6 else 0
        for key in chance.sample(keys, leaving):
            batch.remove(key)
        for _ in range(chance.randint(0, MAX_REQUESTS - len(batch.requests))):
            if chance.random() < 0.5:
                batch.add()
        batch.batch.condense()
        for _ in range(chance.randint(0, 3)):
            if batch.batch.num_reqs > 1:
                batch.batch.swap_states(*chance.sample(range(batch.batch.num_reqs), 2))
        batch.batch.refresh_metadata()
        batch.check()


@pytest.fixture(autouse=True)
def system_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "system")


@pytest.mark.parametrize("seed", range(300))
def test_rows_follow_vllm_through_random_steps(seed: int) -> None:
    follow(seed)


def test_moving_before_adding_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sequences have power: the order "removed, moved, added" goes astray in most of them."""

    def moved_first(batch: Any, update: Any, added: Any) -> None:
        early = SimpleNamespace(
            batch_size=MAX_REQUESTS, removed=update.removed, moved=update.moved, added=[]
        )
        apply_update(batch, early, {})
        late = SimpleNamespace(batch_size=update.batch_size, removed=[], moved=[], added=[])
        apply_update(batch, late, added)

    monkeypatch.setattr(v1, "apply_update", moved_first)
    astray = 0
    for seed in range(30):
        try:
            follow(seed)
        except AssertionError:
            astray += 1
    assert astray >= 15, astray
