# SPDX-License-Identifier: Apache-2.0
"""The compiled passes against those in NumPy, and the selector that runs on them."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from qr_sampler import FastSelector, ReferenceSelector, Rows, SamplingParameters
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.selection.masses import fixed_point_masses
from qr_sampler.selection.passes import (
    EXP_ERROR,
    PRODUCT_ERROR,
    SUM_ERROR,
    RowPasses,
    weight_bounds,
)
from qr_sampler.testing.selection_cases import LOGIT_KINDS, random_logits, random_parameters
from qr_sampler_vllm import compiled_passes
from qr_sampler_vllm.compiled_passes import LANES, CompiledPasses
from qr_sampler_vllm.step import force_tokens, selector_for

SIZES = (1, 2, LANES - 1, LANES, LANES + 1, 3_000, 3_073, 20_001)


def typical_row(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    logits = rng.normal(0.0, 2.5, size).astype(np.float32)
    if size > 4:
        logits[rng.integers(size, size=size // 4)] = -np.inf
    logits[rng.integers(size)] = 9.0
    return logits


def test_masses_are_those_of_the_definition_bit_for_bit() -> None:
    rng = np.random.default_rng(1)
    spread = [scale * rng.random(20_000) for scale in (1e-6, 1e-2, 1.0, 30.0, 800.0)]
    distance = -np.concatenate([*spread, [0.0, -0.0, np.inf, 3e38]]).astype(np.float32)
    passes = CompiledPasses(distance.size)
    for inverse in (1.0, 1.0 / 0.7, 1.0 / 1.3, 1e3, 1e-3):
        expected = fixed_point_masses(distance, inverse, 35)
        assert passes.masses(distance, inverse, 35).tobytes() == expected.tobytes()


def test_every_exponential_keeps_to_its_bound() -> None:
    """Two tokens make a row whose weight is 1 + exp(d): here d runs over all of float32's range."""
    bits = np.arange(0, np.float32(87.0).view(np.uint32), 1 << 15, dtype=np.uint32)
    distances = -bits.view(np.float32)
    passes = CompiledPasses(2)
    for inverse in (1.0, 1.0 / 0.7):
        for distance in distances[distances * np.float32(inverse) > -15.0]:
            found = passes.weight(np.array([0.0, distance], np.float32), np.float32(0.0), inverse)
            exact = math.exp(float(distance) * inverse)
            error = EXP_ERROR + PRODUCT_ERROR * abs(float(distance) * inverse)
            assert abs(found - 1.0 - exact) <= exact * error + SUM_ERROR


@pytest.mark.parametrize("size", SIZES)
def test_sums_stay_within_the_proved_bounds(size: int) -> None:
    rng = np.random.default_rng(size)
    passes = CompiledPasses(size)
    for temperature in (0.3, 1.0, 1.7):
        logits = typical_row(rng, size)
        maximum = passes.maximum(logits)
        exact = np.exp((logits.astype(np.float64) - maximum) / temperature).sum()
        lowest, highest = weight_bounds(passes.weight(logits, maximum, 1.0 / temperature))
        assert lowest <= exact <= highest
        measured = passes.moments(logits, maximum)
        p = softmax(logits.astype(np.float64))
        surprisal = -np.log(p[p > 0.0])
        entropy = float((p[p > 0.0] * surprisal).sum())
        varentropy = float((p[p > 0.0] * (surprisal - entropy) ** 2).sum())
        assert abs(measured.moments.entropy_nats - entropy) <= measured.entropy_error
        assert abs(measured.moments.varentropy_nats2 - varentropy) <= measured.varentropy_error


def test_the_bounds_are_needed() -> None:
    """The sums are approximate: bounds a hundred times tighter would not hold."""
    rng = np.random.default_rng(2)
    passes, misses = CompiledPasses(20_001), 0
    for _ in range(50):
        logits = typical_row(rng, 20_001)
        maximum = passes.maximum(logits)
        exact = np.exp((logits.astype(np.float64) - maximum) / 1.3).sum()
        found = passes.weight(logits, maximum, 1.0 / 1.3)
        misses += abs(found / exact - 1.0) > 0.01 * EXP_ERROR
    assert misses > 25


@pytest.mark.parametrize("size", SIZES)
def test_the_head_holds_exactly_the_leading_tokens(size: int) -> None:
    rng = np.random.default_rng(size)
    passes = CompiledPasses(size)
    for logits in (typical_row(rng, size), np.zeros(size, np.float32)):
        passes.maximum(logits)
        head = passes.head(logits)
        order = np.argsort(-logits, kind="stable")
        assert head.token_ids.tolist() == order[: head.token_ids.size].tolist()
        assert head.distance.tolist() == (logits[head.token_ids] - logits.max()).tolist()
    plain = RowPasses(size)
    logits = typical_row(rng, size)
    plain.maximum(logits)
    passes.maximum(logits)
    assert passes.head(logits).token_ids.tolist() == plain.head(logits).token_ids.tolist()


@pytest.mark.parametrize("kind", LOGIT_KINDS)
def test_selects_what_the_reference_selects(kind: str) -> None:
    rng = np.random.default_rng(LOGIT_KINDS.index(kind))
    fast, reference = FastSelector(CompiledPasses), ReferenceSelector()
    for vocab_size in (3, 130, 5_000, 20_000):
        count = 6
        logits = np.stack([random_logits(rng, kind, vocab_size) for _ in range(count)])
        rows = Rows([random_parameters(rng, vocab_size) for _ in range(count)])
        temperature = 10.0 ** rng.uniform(-1.0, 1.0, count)
        unknown = np.full(count, np.nan)
        measured, expected = (one.measure(logits, rows, unknown) for one in (fast, reference))
        for name in ("entropy_nats", "varentropy_nats2"):
            rounded = [np.rint(getattr(one, name) * 1024.0) for one in (measured, expected)]
            assert rounded[0].tolist() == rounded[1].tolist()
        plans = fast.prepare(measured, temperature), reference.prepare(expected, temperature)
        for u in (U_MIN, 0.3, 0.9, 0.999_99, 1.0 - 1e-10, U_MAX, *rng.random(4)):
            us = np.full(count, u)
            found, right = fast.pick(plans[0], us), reference.pick(plans[1], us)
            assert found.token_ids.tolist() == right.token_ids.tolist()
            assert found.rank.tolist() == right.rank.tolist()
            assert found.candidates.tolist() == right.candidates.tolist()


def test_logits_on_the_host_are_served_by_compiled_passes() -> None:
    selector = selector_for(torch.zeros(1, 3))
    assert isinstance(selector, FastSelector)
    logits = np.array([[0.0, 2.0, 1.0]], dtype=np.float32)
    rows, one = Rows([SamplingParameters()]), np.ones(1)
    plan = selector.prepare(selector.measure(logits, rows, one), one)
    assert selector.pick(plan, np.array([0.5])).token_ids.tolist() == [1]


def test_without_numba_the_passes_are_numpy_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qr_sampler_vllm.step.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "qr_sampler_vllm.compiled_passes", None)
    assert isinstance(selector_for(torch.zeros(1, 3)), FastSelector)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forcing_leaves_other_rows_alone(dtype: torch.dtype) -> None:
    logits = torch.arange(12, dtype=dtype).reshape(3, 4)
    force_tokens(logits, [2, 0], [1, 3])
    infinite = -math.inf
    assert logits.tolist() == [
        [infinite, infinite, infinite, 0.0],
        [4.0, 5.0, 6.0, 7.0],
        [infinite, 0.0, infinite, infinite],
    ]


def test_compiled_loops_do_what_their_source_says() -> None:
    """The same functions, run by Python and by the compiler; their sums may round differently."""
    rng = np.random.default_rng(4)
    logits = rng.normal(0.0, 3.0, 2 * LANES + 5).astype(np.float32)
    passes = CompiledPasses(logits.size)
    maximum, inverse, memory = logits.max(), np.float32(0.8), passes._memory
    for loop in (compiled_passes._sums, compiled_passes._weight):
        found = loop(logits, maximum, inverse, *memory)
        assert loop.py_func(logits, maximum, inverse, *memory) == pytest.approx(found, rel=1e-6)
    names = ("y", "e", "powers", "k")
    arrays = dict(zip(names, memory, strict=False))
    compiled_passes._exponentials.py_func(logits[:7], maximum, inverse, *arrays.values())
    expected = np.exp((logits[:7].astype(np.float64) - maximum) * 0.8)
    assert arrays["e"][:7] == pytest.approx(expected, rel=1e-6)
    distance = logits - maximum
    masses = np.empty(logits.size)
    compiled_passes._masses.py_func(distance, 0.8, 2.0**35, masses, masses.view(np.int64))
    assert masses.tolist() == fixed_point_masses(distance, 0.8, 35).tolist()
    maxima = logits[:100].copy()
    for room in (300, 3):
        ids = np.empty(room, dtype=np.intp)
        arguments = (logits, maxima, np.float32(0.5), ids)
        count = compiled_passes._head(*arguments)
        assert compiled_passes._head.py_func(*arguments) == count
        assert (count == -1) == (room == 3)
