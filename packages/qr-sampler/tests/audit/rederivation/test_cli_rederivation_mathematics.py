# SPDX-License-Identifier: Apache-2.0
"""The errors that explain a number: never more than the real one, and none where there is none."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import math
import struct
from array import array
from typing import Any

import numpy as np
import pytest

from qr_sampler import FastSelector, ReferenceSelector, Rows, SamplingParameters
from qr_sampler_cli.audit.rederivation.judging.row_law import (
    INEXPLICABLE,
    RowLaw,
    smallest_error,
)
from qr_sampler_cli.audit.rederivation.judging.statistics_error import (
    RowStatistics,
    spread_of_probability,
)
from qr_sampler_cli.audit.rederivation.judging.token_errors import JudgedRow, judged_rows
from qr_sampler_cli.audit.rederivation.judging.tolerance import LIMITS, rule_for, scale_of
from qr_sampler_cli.audit.rederivation.prompts import prompt_digest
from qr_sampler_cli.audit.rederivation.transcripts import Decided, RecordedNumbers

FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.05},
    {"top_n_sigma": 1.0},
    {"typical_p": 0.8},
    {"top_k": 40, "typical_p": 0.5},
    {"top_k": 30, "top_p": 0.9, "min_p": 0.01, "truncate_first": True},
)
ROWS = 60
VOCAB_SIZE = 97


def sampled(
    logits: Any, parameters: SamplingParameters, temperature: float, u: Any
) -> tuple[list[int], list[RecordedNumbers]]:
    """Returns tokens and records of rows, by the selector that engines use and not the audit."""
    selector = FastSelector()
    temperatures = np.full(len(logits), temperature)
    measurement = selector.measure(logits, Rows([parameters] * len(logits)), temperatures)
    result = selector.pick(selector.prepare(measurement, temperatures), u)
    columns = (
        u,
        temperatures,
        measurement.entropy_nats,
        measurement.varentropy_nats2,
        np.full(len(u), np.nan),
        result.rank,
        result.probability,
        result.candidates,
    )
    records = [RecordedNumbers(*map(float, row)) for row in zip(*columns, strict=True)]
    return result.token_ids.tolist(), records


def compared(
    engine: Any, model: Any, options: dict[str, Any], temperature: float, u: Any
) -> list[JudgedRow]:
    """Returns what rows of *model* show of what was recorded with those of *engine*."""
    parameters = SamplingParameters(**options)
    token_ids, records = sampled(engine, parameters, temperature, u)
    decided = [Decided.ONE_NUMBER] * len(token_ids)
    rows = judged_rows(model, token_ids, decided, records, parameters)
    return [row for row in rows if row is not None]


def made(seed: int) -> tuple[Any, Any, np.random.Generator]:
    """Returns rows of very different shapes, and u."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.2, 6.0, (ROWS, 1))
    logits = (rng.normal(size=(ROWS, VOCAB_SIZE)) * spread).astype(np.float32)
    return logits, rng.uniform(size=ROWS), rng


@pytest.mark.parametrize("options", FILTERS)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_equal_logits_need_no_error(options: dict[str, Any], temperature: float) -> None:
    logits, u, _ = made(1)
    for row in compared(logits, logits, options, temperature, u):
        assert row.errors == (0.0,) * 6
        assert row.outside == 0.0


@pytest.mark.parametrize("options", FILTERS)
@pytest.mark.parametrize("temperature", [0.3, 1.0])
@pytest.mark.parametrize("error", [1e-4, 3e-3, 0.05])
@pytest.mark.parametrize("shape", ["uniform", "rounded"])
def test_no_more_error_is_needed_than_there_is(
    options: dict[str, Any], temperature: float, error: float, shape: str
) -> None:
    logits, u, rng = made(2)
    if shape == "uniform":
        engine = logits + rng.uniform(-error, error, logits.shape).astype(np.float32)
    else:
        # Ties, as half precision makes them.
        engine = (np.round(logits / (2 * error)) * (2 * error)).astype(np.float32)
    rows = compared(engine, logits, options, temperature, u)
    worst = np.array([row.errors for row in rows]).max(axis=0)
    # The statistics are good to second order, and float32 rounds the sums.
    assert (worst <= 1.1 * error + 2e-6).all(), worst
    if error > 1e-3:
        assert worst.max() > 0.05 * error


@pytest.mark.parametrize("options", FILTERS)
def test_another_u_needs_an_error(options: dict[str, Any]) -> None:
    logits, u, _ = made(3)
    parameters = SamplingParameters(**options)
    token_ids, records = sampled(logits, parameters, 1.0, u)
    other = (u + 0.4) % 1.0
    again, _ = sampled(logits, parameters, 1.0, other)
    forged = [each._replace(u=value) for each, value in zip(records, other, strict=True)]
    decided = [Decided.ONE_NUMBER] * len(forged)
    for row, one, two in zip(
        judged_rows(logits, token_ids, decided, forged, parameters), token_ids, again, strict=True
    ):
        assert row is not None
        assert (row.errors.u > 0.0) == (row.outside > 0.0) == (one != two)


def test_the_needed_error_is_that_of_two_tokens() -> None:
    # With two tokens, u selects the first up to its probability p = 1 / (1 + exp(-(a - b) / T)),
    # and the logits have to come apart by 2 d.
    for apart, temperature, u in ((1.0, 0.7, 0.95), (0.2, 1.3, 0.8), (3.0, 1.0, 0.99)):
        logits = np.array([[apart, 0.0]], dtype=np.float32)
        ids, (record,) = sampled(logits, SamplingParameters(), temperature, np.array([0.1]))
        assert ids == [0]
        told = [record._replace(u=u)]
        (row,) = judged_rows(logits, ids, [Decided.ONE_NUMBER], told, SamplingParameters())
        assert row is not None
        # Or far enough for the second to come first, and be selected from 0 on.
        needed = min(temperature * math.log(u / (1.0 - u)) - apart, apart) / 2.0
        assert row.errors.u == pytest.approx(needed, rel=2e-3)


def test_what_is_left_open_grows_with_the_error() -> None:
    logits, u, _ = made(4)
    for row in compared(logits, logits, {"top_p": 0.9}, 1.0, u):
        assert (np.diff(row.left_open) >= 0.0).all()
        assert row.left_open[-1] == pytest.approx(1.0, abs=0.2)


def test_bounds_without_an_error_are_the_intervals_of_the_selector() -> None:
    logits, u, _ = made(5)
    selector, parameters = ReferenceSelector(), SamplingParameters(top_k=20)
    temperatures = np.full(ROWS, 0.8)
    measurement = selector.measure(logits, Rows([parameters] * ROWS), temperatures)
    plan = selector.prepare(measurement, temperatures)
    ranks = selector.pick(plan, u).rank.tolist()
    for line, rank in enumerate(ranks):
        ranked = logits[line, plan.order[line]].astype(np.float64)
        law = RowLaw(
            below=ranked[0] - ranked,
            cumulative=plan.cumulative[line],
            start=int(plan.start[line]),
            stop=int(plan.stop[line]),
            temperature=0.8,
        )
        bounds = [law.bounds(each, 20) for each in range(20)]
        assert bounds[0].low == 0.0
        assert bounds[-1].high == 1.0
        assert all(one.high == two.low for one, two in itertools.pairwise(bounds))
        assert bounds[rank].low < u[line] <= bounds[rank].high
        assert law.bounds(30, 20).low == 1.0


def test_bounds_of_typical_p_are_the_widest_of_all_starts() -> None:
    masses = np.array([900, 500, 0, 300, 200, 100, 50, 0])
    law = RowLaw(
        below=np.array([0.0, 0.5, 0.6, 1.0, 1.4, 2.0, 2.1, 9.0]),
        cumulative=np.concatenate([[0], np.cumsum(masses)]),
        start=2,
        stop=5,
        temperature=0.7,
        window=5.0,
    )
    for rank, error, kept in itertools.product(range(8), (1e-3, 0.05, 0.2, 3.0), range(1, 9)):
        before = sum(1 for each in law.below[:rank] if each <= law.below[rank] - 2.0 * error)
        until = max(rank + 1, sum(1 for each in law.below if each < law.below[rank] + 2.0 * error))
        lows, highs = [1.0], [0.0]
        for start in law.starts(error):
            if total := masses[start : start + kept].sum():
                base = masses[:start].sum()
                lows.append((masses[:before].sum() - base) / total)
                highs.append((masses[:until].sum() - base) / total)
        odds = math.exp(2.0 * error / 0.7)
        low, high = max(min(lows), 0.0), min(max(highs), 1.0)
        found = law.bounds(rank, kept, error)
        assert found.low == pytest.approx(low / (low + (1.0 - low) * odds))
        assert found.high == pytest.approx(high * odds / (high * odds + 1.0 - high))


def test_rows_of_large_vocabularies_are_judged_at_once() -> None:
    # A step of the interpreter for each rank and tolerance would take a quarter of a minute.
    rng = np.random.default_rng(9)
    logits = (3.0 * rng.normal(size=(1, 150_000))).astype(np.float32)
    logits[:, :20] += 12.0
    for row in compared(logits, logits, {"typical_p": 0.9}, 1.0, np.array([0.3])):
        assert row.errors == (0.0,) * 6
        assert row.left_open[-1] > 0.9


def test_statistics_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    special = pytest.importorskip("scipy.special")
    logits, _, rng = made(6)
    for row in logits.astype(np.float64):
        found, p = RowStatistics.of(row), special.softmax(row)
        assert found.entropy_nats == pytest.approx(stats.entropy(p), abs=1e-12)
        surprise = -special.log_softmax(row)
        assert found.varentropy_nats2 == pytest.approx(np.cov(surprise, aweights=p, ddof=0))
        # Derivatives by differences.
        error = 1e-6 * rng.choice([-1.0, 1.0], VOCAB_SIZE)
        moved = RowStatistics.of(row + error)
        most = 1e-6 * found.most_of_entropy + 1e-11
        assert abs(moved.entropy_nats - found.entropy_nats) <= most
        most = 1e-6 * found.most_of_varentropy + 1e-10
        assert abs(moved.varentropy_nats2 - found.varentropy_nats2) <= most


def test_spreads_are_those_of_simulated_errors() -> None:
    rng = np.random.default_rng(7)
    row = rng.normal(size=20) * 2.0
    errors = rng.normal(0.0, 1e-4, (20_000, 20))
    entropies = np.array([RowStatistics.of(row + error).entropy_nats for error in errors[:4_000]])
    # The standard deviation of 4,000 normal numbers is good to 1.1 %, and the seed is fixed.
    assert entropies.std() / 1e-4 == pytest.approx(
        RowStatistics.of(row).spread_of_entropy, rel=0.06
    )
    exponents = (row + errors) / 0.7
    laws = exponents - np.log(np.exp(exponents).sum(axis=1, keepdims=True))
    law = np.exp(row / 0.7) / np.exp(row / 0.7).sum()
    for rank in range(5):
        spread = spread_of_probability(law, rank, 0.7)
        assert laws[:, rank].std() / 1e-4 == pytest.approx(spread, rel=0.04)


def test_the_smallest_error_is_found() -> None:
    assert smallest_error(lambda error: True) == 0.0
    assert smallest_error(lambda error: False) == INEXPLICABLE
    for true in (3e-6, 0.01, 1.0, 30.0):
        found = smallest_error(lambda error, true=true: error >= true)  # type: ignore[misc]
        assert true <= found <= true * 1.002


def test_the_scale_is_that_of_the_errors() -> None:
    halfnorm = pytest.importorskip("scipy.stats").halfnorm
    quantiles = halfnorm.ppf((np.arange(10_000) + 0.5) / 10_000)
    rule = LIMITS["bfloat16"]
    scale = scale_of((0.02 * quantiles, np.full(10_000, np.nan)), rule)
    assert scale.typical == pytest.approx(0.02, rel=1e-3)
    assert scale.sigma == pytest.approx(0.02, rel=1e-3)
    assert scale.tolerance == pytest.approx(0.08, rel=1e-3)
    # A few that are forged change little, and nothing makes it larger than is plausible.
    forged = np.concatenate([0.02 * quantiles, np.full(50, 5.0)])
    assert scale_of((forged,), rule).sigma < 0.03
    assert scale_of((100.0 * quantiles,), rule).sigma == rule.largest
    assert scale_of((np.zeros(0),), rule).sigma == 1e-5


def test_the_coarsest_data_type_counts() -> None:
    assert rule_for("float32", "bfloat16").name == "bfloat16"
    assert rule_for("float16", "float32").name == "float16"
    assert rule_for("float32", "").name == "float32"


def test_the_digest_of_a_prompt_is_the_specified_one() -> None:
    ids = [0, 1, 255, 256, 151_935]
    data = b"".join(struct.pack("<i", each) for each in ids)
    assert (
        prompt_digest(b"k" * 32, array("i", ids))
        == hmac.digest(b"k" * 32, data, hashlib.sha256).hex()
    )
