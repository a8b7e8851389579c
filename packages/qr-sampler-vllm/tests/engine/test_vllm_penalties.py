# SPDX-License-Identifier: Apache-2.0
"""Penalties ahead of the choice are vLLM's own, and its own pass afterwards changes no choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")
pytest.importorskip("vllm", reason="needs vLLM, which the vllm session installs")

from vllm.v1.sample.logits_processor import LogitsProcessors  # noqa: E402
from vllm.v1.sample.metadata import SamplingMetadata  # noqa: E402
from vllm.v1.sample.sampler import Sampler  # noqa: E402

from qr_sampler_accel import TensorLogits  # noqa: E402
from qr_sampler_vllm.requests.penalties import (  # noqa: E402
    REPETITION_LIMIT,
    Penalties,
    apply_penalties,
    distinct_tokens,
)

NEUTRAL = Penalties(1.0, 0.0, 0.0)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ),
]


def metadata(
    vocab_size: int,
    penalties: Sequence[Penalties],
    prompts: Sequence[Sequence[int] | None],
    outputs: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    device: str = "cpu",
) -> SamplingMetadata:
    """What Model Runner V1 tells its sampler of such a batch."""
    length = max(len(prompt or ()) for prompt in prompts)
    padded = [[*(p or ()), *[vocab_size] * (length - len(p or ()))] for p in prompts]

    def column(values: Sequence[float]) -> Any:
        with np.errstate(over="ignore"):
            return torch.from_numpy(np.array(values).astype(np.float32)).to(device)

    return SamplingMetadata(
        temperature=column([temperature] * len(penalties)),
        all_greedy=temperature == 0.0,
        all_random=temperature > 0.0,
        top_p=None,
        top_k=None,
        generators={},
        max_num_logprobs=None,
        no_penalties=False,
        prompt_token_ids=torch.tensor(padded, dtype=torch.int64, device=device),
        frequency_penalties=column([each.frequency for each in penalties]),
        presence_penalties=column([each.presence for each in penalties]),
        repetition_penalties=column([each.repetition for each in penalties]),
        output_token_ids=[list(output) for output in outputs],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors(),
    )


def by_vllm(logits: Any, batch: SamplingMetadata) -> Any:
    """The logits after the penalty pass of vLLM's own sampler."""
    return Sampler.apply_penalties(logits.clone(), batch, batch.output_token_ids)


def assert_same_bits(ours: Any, theirs: Any) -> None:
    assert torch.equal(ours.contiguous().view(torch.int32), theirs.contiguous().view(torch.int32))


finite = st.floats(-(2.0**60), 2.0**60, width=32) | st.floats(-20.0, 20.0, width=32)
logit = finite | st.sampled_from([0.0, -0.0, -math.inf])
repetition = st.floats(0.1, 10.0) | st.sampled_from([1.0, 1 / REPETITION_LIMIT, REPETITION_LIMIT])
subtracted = st.floats(-2.0, 2.0) | st.sampled_from([0.0, -2.0, 2.0])


class Batch:
    """Rows of logits of which some have penalties."""

    def __init__(self, data: st.DataObject) -> None:
        self.vocab_size = data.draw(st.integers(1, 9), label="V")
        count = data.draw(st.integers(1, 4), label="R")
        token = st.integers(0, self.vocab_size - 1)
        row = st.lists(logit, min_size=self.vocab_size, max_size=self.vocab_size)
        self.logits = torch.tensor([data.draw(row) for _ in range(count)], dtype=torch.float32)
        self.lines = data.draw(
            st.lists(st.integers(0, count - 1), min_size=1, unique=True), label="lines"
        )
        self.penalties = [NEUTRAL] * count
        for line in self.lines:
            self.penalties[line] = data.draw(
                st.builds(Penalties, repetition, subtracted, subtracted)
            )
        prompt = st.none() | st.lists(token, max_size=12)
        self.prompts = [data.draw(prompt) for _ in range(count)]
        # Unknown tokens are -1.
        output = st.lists(token | st.just(-1), max_size=12)
        self.outputs = [data.draw(output) for _ in range(count)]

    def apply(self, logits: Any, *, distinct: bool = False) -> Any:
        prompts = [self.prompts[line] for line in self.lines]
        apply_penalties(
            logits,
            self.lines,
            [self.penalties[line] for line in self.lines],
            [distinct_tokens(prompt) for prompt in prompts] if distinct else prompts,
            [self.outputs[line] for line in self.lines],
        )
        return logits

    def expected(self, logits: Any) -> Any:
        device = str(logits.device)
        batch = metadata(self.vocab_size, self.penalties, self.prompts, self.outputs, device=device)
        return by_vllm(logits, batch)


@pytest.mark.parametrize("device", DEVICES)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_penalised_rows_are_vllms_to_the_last_bit(device: str, data: st.DataObject) -> None:
    batch = Batch(data)
    logits = batch.logits.to(device)
    before, expected = logits.clone(), batch.expected(logits)
    batch.apply(logits, distinct=data.draw(st.booleans(), label="distinct"))
    assert_same_bits(logits, expected)
    others = [line for line in range(len(logits)) if line not in batch.lines]
    assert_same_bits(logits[others], before[others])


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_rows_may_lie_apart(data: st.DataObject) -> None:
    """As they do when the vocabulary of the model is padded."""
    batch = Batch(data)
    padded = torch.full((len(batch.logits), batch.vocab_size + 3), 7.0)
    logits = padded[:, : batch.vocab_size]
    logits.copy_(batch.logits)
    expected = batch.expected(batch.logits)
    batch.apply(logits)
    assert_same_bits(logits, expected)
    assert bool((padded[:, batch.vocab_size :] == 7.0).all())


@pytest.mark.parametrize("lines", [[0, 1, 2], [2, 0]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_calculated_with_as_float32(dtype: Any, lines: list[int]) -> None:
    logits = torch.linspace(-4.0, 5.0, 3 * 7, dtype=torch.float64).view(3, 7).to(dtype)
    penalties = [Penalties(1.3, 0.7, -0.4)] * len(lines)
    prompts, outputs = [[6, 1, 1]] * len(lines), [[0, 2, 2, 6]] * len(lines)
    before, expected, single = logits.clone(), logits.clone(), logits.float()
    apply_penalties(single, lines, penalties, prompts, outputs)
    expected[lines] = single[lines].to(dtype)
    apply_penalties(logits, lines, penalties, prompts, outputs)
    assert torch.equal(logits, expected)
    assert not torch.equal(logits, before)


def test_every_penalty_counts() -> None:
    """Token 0 is in the prompt only, 1 in both, 2 twice in the output only, 3 nowhere."""
    found = torch.tensor([[8.0, 8.0, -8.0, 8.0]] * 3)
    penalties = [Penalties(2.0, 0.0, 0.0), Penalties(1.0, 0.5, 0.0), Penalties(1.0, 0.0, 0.25)]
    apply_penalties(found, [0, 1, 2], penalties, [[0, 1]] * 3, [[1, 2, 2]] * 3)
    assert found.tolist() == [
        [4.0, 4.0, -16.0, 8.0],
        [8.0, 7.5, -9.0, 8.0],
        [8.0, 7.75, -8.25, 8.0],
    ]


VOCAB = 23
CHOSEN = 7
EXTREMES = [
    Penalties(*values)
    for values in product((1 / REPETITION_LIMIT, 1.0, REPETITION_LIMIT), (-2.0, 2.0), (-2.0, 2.0))
]


def forced(count: int) -> Any:
    logits = torch.randn((count, VOCAB), generator=torch.Generator().manual_seed(5))
    TensorLogits().force(logits, list(range(count)), [CHOSEN] * count)
    return logits


@pytest.mark.parametrize("temperature", [0.0, 0.01, 1.0, 2.0])
@pytest.mark.parametrize("history", [[], [CHOSEN], [CHOSEN] * 100_000 + [3, 22]])
def test_penalties_on_a_forced_row_change_no_choice(temperature: float, history: list[int]) -> None:
    count = len(EXTREMES)
    batch = metadata(
        VOCAB,
        EXTREMES,
        [[CHOSEN, 0, 22]] * count,
        [history] * count,
        temperature=temperature,
    )
    after = by_vllm(forced(count), batch)
    others = [token for token in range(VOCAB) if token != CHOSEN]
    assert bool(torch.isfinite(after[:, CHOSEN]).all())
    assert bool((after[:, others] == -math.inf).all())
    if history:
        assert bool((after[:, CHOSEN] != 0.0).any()), "vLLM's pass has not run"
    sampled = Sampler()(forced(count), batch).sampled_token_ids
    assert sampled.view(-1).tolist() == [CHOSEN] * count


def test_a_penalty_that_is_refused_would_have_replaced_the_choice() -> None:
    batch = metadata(VOCAB, [Penalties(1e-46, 0.0, 0.0)], [[3]], [[]])
    sampled = Sampler()(forced(1), batch).sampled_token_ids
    assert sampled.item() != CHOSEN
