# SPDX-License-Identifier: Apache-2.0
"""One step on torch tensors: which rows are touched, and in which order things happen."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropySource, Rows, SamplingPipeline, Settings
from qr_sampler.host.logits import defect_of
from qr_sampler.testing import ConstantEntropySource

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")

from qr_sampler_accel import TensorLogits  # noqa: E402
from qr_sampler_accel.device.tensor_logits import force_together  # noqa: E402

ACCESS = TensorLogits()
VOCAB = 50


def pipeline(source: EntropySource | None = None) -> SamplingPipeline:
    settings = Settings.load(sample_count=8, fixed_temperature=1.0)
    return SamplingPipeline(settings, source or ConstantEntropySource())


def rows(count: int) -> Rows:
    return Rows([Settings.load(sample_count=8, fixed_temperature=1.0).sampling] * count)


def random_logits(count: int, dtype: Any = None) -> Any:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((count, VOCAB), generator=generator).to(dtype or torch.float32)


def assert_forced(row: Any, token_id: int) -> None:
    expected = torch.full((VOCAB,), -math.inf, dtype=row.dtype)
    expected[token_id] = 0.0
    assert torch.equal(row, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_forced_rows_hold_the_token_that_the_reference_selects(dtype: Any) -> None:
    logits = random_logits(3, dtype)
    reference = pipeline().sample(logits.to(torch.float32).numpy(), rows(3))
    step = ACCESS.sample(pipeline(), logits, [0, 1, 2], rows(3))
    assert step is not None
    assert reference is not None
    tokens = step.selection.token_ids.tolist()
    assert tokens == reference.selection.token_ids.tolist()
    for row, token_id in zip(logits, tokens, strict=True):
        assert_forced(row, token_id)


def test_rows_that_were_not_asked_for_stay_as_they_are() -> None:
    logits = random_logits(4)
    before = logits.clone()
    step = ACCESS.sample(pipeline(), logits, [3, 1], rows(2))
    assert step is not None
    assert torch.equal(logits[[0, 2]], before[[0, 2]])
    alone = pipeline().sample(before[[3, 1]].numpy(), rows(2))
    assert alone is not None
    assert_forced(logits[3], int(alone.selection.token_ids[0]))
    assert_forced(logits[1], int(alone.selection.token_ids[1]))


def test_rows_without_a_distribution_are_left_to_their_caller() -> None:
    logits = random_logits(3)
    logits[0] = -math.inf
    logits[2, 5] = math.nan
    before = logits.clone()
    source = ConstantEntropySource()
    step = ACCESS.sample(pipeline(source), logits, [0, 1, 2], rows(3))
    assert step is not None
    assert step.plan.lines.tolist() == [1]
    assert source.requests == [8]
    assert torch.equal(logits[0], before[0])
    assert torch.allclose(logits[2], before[2], equal_nan=True)
    assert_forced(logits[1], int(step.selection.token_ids[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_defect_of_a_row_and_its_token_are_named(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    logits = random_logits(4).to(dtype)
    logits[0] = -math.inf
    logits[1, 5] = math.nan
    logits[2, 7] = math.inf
    logits[3, [3, 9]] = torch.tensor([math.inf, math.nan], dtype=dtype)
    with caplog.at_level(logging.ERROR, logger="qr_sampler.vllm"):
        found = [defect_of(logits, line) for line in range(4)]
    assert found == [(0, "masked"), (5, "nan"), (7, "infinite"), (9, "nan")]
    assert "a row of logits has no finite maximum (masked)" in caplog.text


def test_nothing_is_drawn_when_no_row_can_be_decided() -> None:
    source = ConstantEntropySource()
    logits = torch.full((2, VOCAB), -math.inf)
    assert ACCESS.sample(pipeline(source), logits, [0, 1], rows(2)) is None
    assert source.requests == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("force", [ACCESS.force, force_together])
def test_forcing_writes_whole_rows_in_place(force: Callable[..., None], dtype: Any) -> None:
    logits = random_logits(3, dtype)
    address, other = logits.data_ptr(), logits[1].clone()
    force(logits, [2, 0], np.array([4, 49]))
    assert logits.data_ptr() == address
    assert_forced(logits[2], 4)
    assert_forced(logits[0], 49)
    assert torch.equal(logits[1], other)
