# SPDX-License-Identifier: Apache-2.0
"""Rows in the memory of the host: which selector serves them, and how they are forced."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest

from qr_sampler import FastSelector, Rows, SamplingParameters, Settings
from qr_sampler.testing import RecordedEntropySource
from qr_sampler_vllm.engine.step import (
    force_tokens,
    get_ready,
    pipeline_for,
    sample_rows,
    selector_for,
)

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")
pytest.importorskip("numba", reason="needs Numba, which vLLM brings")

from qr_sampler_accel.host import (  # noqa: E402
    bins,
    byte_counts,
    descent,
    energies,
    masses,
    passes,
)


def test_logits_on_the_host_are_served_by_compiled_passes() -> None:
    selector = selector_for(torch.zeros(1, 3))
    assert isinstance(selector, FastSelector)
    logits = np.array([[0.0, 2.0, 1.0]], dtype=np.float32)
    rows, one = Rows([SamplingParameters()]), np.ones(1)
    plan = selector.prepare(selector.measure(logits, rows, one), one)
    assert selector.pick(plan, np.array([0.5])).token_ids.tolist() == [1]


def test_without_numba_the_passes_are_numpy_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qr_sampler_vllm.engine.step.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "qr_sampler_accel.host.passes", None)
    assert isinstance(selector_for(torch.zeros(1, 3)), FastSelector)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forcing_leaves_other_rows_alone(dtype: Any) -> None:
    logits = torch.arange(12, dtype=dtype).reshape(3, 4)
    force_tokens(logits, [2, 0], [1, 3])
    infinite = -math.inf
    assert logits.tolist() == [
        [infinite, infinite, infinite, 0.0],
        [4.0, 5.0, 6.0, 7.0],
        [infinite, 0.0, infinite, infinite],
    ]


def test_after_the_warm_up_nothing_is_left_to_compile() -> None:
    """A step on the kinds of logits and batches that engines have adds no compiled version."""
    get_ready("cpu")
    loops = [
        value
        for module in (bins, byte_counts, descent, energies, masses, passes)
        for value in vars(module).values()
        if hasattr(value, "signatures")
    ]
    before = {loop: len(loop.signatures) for loop in loops}
    assert len(loops) >= 12
    settings, rng = Settings.load(fixed_temperature=0.7), np.random.default_rng(3)
    kinds = [
        {"sample_count": 1_024},
        {"typical_p": 0.9},
        {"top_k": 5_000, "temperature_strategy": "edt"},
    ]
    parameters = [settings.sampling.model_copy(update=kind) for kind in kinds]
    for dtype in (torch.float32, torch.bfloat16):
        for lines in ([0, 1, 2], [1], [2, 0]):
            logits = torch.from_numpy(rng.normal(size=(3, 20_000))).to(dtype)
            logits[0] *= 1e-5
            source = RecordedEntropySource(rng.bytes(10**6))
            pipeline = pipeline_for(logits, settings, source)
            rows = Rows([parameters[line] for line in lines])
            assert sample_rows(pipeline, logits, lines, rows) is not None
    assert {loop: len(loop.signatures) for loop in loops} == before
