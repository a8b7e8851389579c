# SPDX-License-Identifier: Apache-2.0
"""A session of the core on tensors: whether rows are forced, and what tokens they get."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qr_sampler import Rows, SamplingPipeline, Settings
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_accel import TensorLogits

torch = pytest.importorskip("torch", reason="needs the extra torch")

VOCAB_SIZE = 40


def sampled(access: TensorLogits, logits: Any) -> list[int]:
    settings = Settings.load(sample_count=8, fixed_temperature=1.0)
    pipeline = access.pipeline(logits, settings, ConstantEntropySource())
    step = access.sample(pipeline, logits, [0, 1, 2], Rows([settings.sampling] * 3))
    assert step is not None
    tokens: list[int] = step.selection.token_ids.tolist()
    return tokens


def expected(logits: Any) -> list[int]:
    settings = Settings.load(sample_count=8, fixed_temperature=1.0)
    step = SamplingPipeline(settings, ConstantEntropySource()).sample(
        logits.numpy(), Rows([settings.sampling] * 3)
    )
    assert step is not None
    tokens: list[int] = step.selection.token_ids.tolist()
    return tokens


def test_a_host_that_is_told_its_tokens_keeps_its_rows() -> None:
    logits = torch.randn((3, VOCAB_SIZE), generator=torch.Generator().manual_seed(5))
    before = logits.clone()
    access = TensorLogits(forces=False)
    assert sampled(access, logits) == expected(before)
    access.force(logits, [1], [7])
    assert torch.equal(logits, before)


def test_other_hosts_find_their_tokens_in_the_rows() -> None:
    logits = torch.randn((3, VOCAB_SIZE), generator=torch.Generator().manual_seed(5))
    tokens = expected(logits)
    assert sampled(TensorLogits(), logits) == tokens
    assert logits.argmax(dim=1).tolist() == tokens
    assert int((logits == -math.inf).sum()) == 3 * (VOCAB_SIZE - 1)
