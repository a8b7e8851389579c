# SPDX-License-Identifier: Apache-2.0
"""Rows in the memory of the host: no step has anything left to compile."""

from __future__ import annotations

import math
import pkgutil
from importlib import import_module
from itertools import product

import numpy as np
import pytest

from qr_sampler import Rows, Settings
from qr_sampler.testing import RecordedEntropySource

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")
pytest.importorskip("numba", reason="needs Numba, which vLLM brings")

import qr_sampler_accel.host  # noqa: E402
from qr_sampler_accel import TensorLogits, warm_up  # noqa: E402


def test_after_the_warm_up_nothing_is_left_to_compile() -> None:
    """A step on the kinds of logits and batches that engines have adds no compiled version."""
    warm_up(logits_on_host=True)
    loops = [
        value
        for module in pkgutil.walk_packages(
            qr_sampler_accel.host.__path__, "qr_sampler_accel.host."
        )
        for value in vars(import_module(module.name)).values()
        if hasattr(value, "signatures")
    ]
    before = {loop: len(loop.signatures) for loop in loops}
    assert len(loops) >= 12
    settings, rng = Settings.load(fixed_temperature=0.7), np.random.default_rng(3)
    kinds = [
        {"sample_count": 1_024},
        {"typical_p": 0.9},
        {"top_k": 5_000, "temperature_strategy": "edt"},
        {"top_n_sigma": 1.5},
        {"top_n_sigma": 1.5, "typical_p": 0.9},
    ]
    parameters = [settings.sampling.model_copy(update=kind) for kind in (*kinds, {})]
    batches = ([0, 1, 2, 3, 4], [1], [2, 0], [0, 5], [3, 5])
    for dtype, size, lines in product((torch.float32, torch.bfloat16), (20_000, 500), batches):
        logits = torch.from_numpy(rng.normal(size=(6, size))).to(dtype)
        logits[0] *= 1e-5
        logits[5] = -math.inf
        source = RecordedEntropySource(rng.bytes(10**6))
        pipeline = TensorLogits().pipeline(logits, settings, source)
        rows = Rows([parameters[line] for line in lines])
        assert TensorLogits().sample(pipeline, logits, lines, rows) is not None
    assert {loop: len(loop.signatures) for loop in loops} == before
