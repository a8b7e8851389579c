# SPDX-License-Identifier: Apache-2.0
"""M1: acceptance and text of contextual targets, tested context by context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from qr_sampler_tsd import SeededUniforms
from qr_sampler_tsd.experiments import (
    Equipment,
    ExperimentResult,
    M0Settings,
    M1Settings,
    context_chi_square,
    run_m1,
    sweep,
)
from qr_sampler_tsd.experiments.evidence import acceptance_interval, acceptance_z, prefix_z
from qr_sampler_tsd.telemetry import RunWriter
from qr_sampler_tsd.tsu import SimTSU

FALSE_ALARMS = 1e-9
Z = 6.2


def run(**options: Any) -> ExperimentResult:
    settings = M1Settings(**{"steps": 5000, "dense_seconds": 0, **options})
    return run_m1(settings, Equipment(SeededUniforms(settings.seed)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"vocab_size": 32_000, "contexts": 4},
        {"length": 4, "steps": 2000},
        {"length": 4, "verifier": "block", "steps": 2000},
        {"length": 3, "verifier": "k_seq"},
        {"batch": 3, "length": 2, "steps": 1500, "psi_version": 2},
    ],
    ids=str,
)
def test_text_and_acceptance(options: dict[str, Any]) -> None:
    result = run(**options)
    assert result.chi_square.p_value > FALSE_ALARMS
    assert result.chi_square.contexts > 3
    assert abs(result.accept_z) < Z
    assert np.isfinite(result.ce_gap_nats)


def test_corpus(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("the cat sat on the mat; that is that, said the cat. " * 30, "utf-8")
    result = run(corpus=path, laplace=0.1, k=6, steps=8000)
    assert result.chi_square.p_value > FALSE_ALARMS
    assert result.chi_square.contexts > 10
    assert abs(result.accept_z) < Z


@pytest.mark.heavy
def test_blocks_as_a_whole_emit_more() -> None:
    options = {"k": 16, "length": 4, "steps": 10_000}
    by_token, by_block = run(**options), run(verifier="block", **options)
    # About .17 apart; a pass emits 1 to 5 tokens, so their difference deviates by at most .028.
    assert by_block.tokens_per_pass > by_token.tokens_per_pass


def test_the_mean_of_the_rows_is_not_what_to_test_against() -> None:
    """A chain emits by its stationary distribution, which is not the mean of the rows."""
    p = np.array([[0.9, 0.1], [0.9, 0.1]])
    p[1] = [0.5, 0.5]
    rng = np.random.default_rng(1)
    context, contexts, tokens = 0, [], []
    for u in rng.random(5000):
        contexts.append(context)
        context = int(u >= p[context, 0])
        tokens.append(context)
    counts = np.bincount(tokens, minlength=2)
    assert chisquare(counts, p.mean(axis=0) * 5000).pvalue < FALSE_ALARMS
    assert context_chi_square(lambda row: p[row], contexts, tokens).p_value > FALSE_ALARMS


def test_chi_square_is_that_of_scipy() -> None:
    p = np.array([0.4, 0.3, 0.2, 0.1])
    tokens = [0] * 45 + [1] * 25 + [2] * 22 + [3] * 8
    found = context_chi_square(lambda row: p, [0] * 100, tokens)
    expected = chisquare([45, 25, 22, 8], p * 100)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.degrees, found.contexts) == (3, 1)
    twice = context_chi_square(lambda row: p, [0, 3] * 100, [t for t in tokens for _ in "ab"])
    assert twice.statistic == pytest.approx(2 * expected.statistic)
    assert (twice.degrees, twice.contexts) == (6, 2)


def test_rare_tokens_share_cells() -> None:
    p = np.append(0.5, np.full(1000, 0.0005))
    # 400 draws: 200 expected for token 0, and 200 in cells of 10, whatever was drawn.
    found = context_chi_square(lambda row: p, [0] * 400, [0] * 200 + list(range(1, 201)))
    assert found.degrees == 20
    assert context_chi_square(lambda row: p, [0], [0]).degrees == 0


def test_chi_square_keeps_its_rate() -> None:
    """Over 400 fair runs the p-values are uniform, by Kolmogorov's bound at 1e-9."""
    p = 1 / np.arange(1, 301) ** 1.2
    p /= p.sum()
    rng = np.random.default_rng(5)
    values = []
    for _ in range(400):
        tokens = rng.choice(300, size=300, p=p).tolist()
        contexts = (np.arange(300) % 3).tolist()
        values.append(context_chi_square(lambda row: p, contexts, tokens).p_value)
    distance = np.abs(np.sort(values) - (np.arange(400) + 0.5) / 400).max() + 0.5 / 400
    assert distance < np.sqrt(np.log(2 / FALSE_ALARMS) / (2 * 400))


def test_an_impossible_token_is_found() -> None:
    found = context_chi_square(lambda row: np.array([1.0, 0.0]), [0] * 100, [0] * 99 + [1])
    assert (found.statistic, found.p_value) == (float("inf"), 0.0)


def test_intervals() -> None:
    low, high = acceptance_interval(745, 1000)
    # Wilson's interval at z = 3.2905.
    z, n, share = 3.290526731491926, 1000, 0.745
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert (low, high) == pytest.approx((centre - half, centre + half))
    assert acceptance_z(60, np.full(100, 0.5)) == pytest.approx(2.0)
    assert acceptance_z(100, np.ones(100)) == 0
    assert acceptance_z(99, np.ones(100)) == -np.inf


def test_units_are_called_once_per_context() -> None:
    class Counting(SimTSU):
        def __init__(self) -> None:
            self.calls: list[int] = []

        def sample_categorical(self, psi: Any, batch_size: int, uniforms: Any) -> Any:
            self.calls.append(batch_size)
            return super().sample_categorical(psi, batch_size, uniforms)

    unit = Counting()
    settings = M1Settings(vocab_size=100, contexts=2, batch=8, steps=400, dense_seconds=0)
    result = run_m1(settings, Equipment(SeededUniforms(1), unit=unit))
    assert result.chi_square.p_value > FALSE_ALARMS
    assert sum(unit.calls) == 8 * 400
    assert len(unit.calls) <= 2 * 400


def test_contexts_by_default() -> None:
    assert M1Settings(vocab_size=256).target().contexts == 256
    assert M1Settings(vocab_size=1000).target().contexts == 1000
    assert M1Settings(vocab_size=151_936).target().contexts == 13


def test_events_of_every_pass(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    settings = M1Settings(vocab_size=60, k=8, length=2, batch=2, steps=40, log_every=4)
    uniforms = SeededUniforms(9)
    with RunWriter(tmp_path, "M1") as writer:
        equipment = Equipment(
            uniforms, writer=writer, progress=lambda done, total: progress.append((done, total))
        )
        result = run_m1(settings, equipment)
    lines = (writer.directory / "tsd_metrics.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert [(event["step"], event["row"]) for event in events] == [
        (step, row) for step in range(0, 40, 4) for row in (0, 1)
    ]
    assert progress[-1] == (40, 40)
    for event in events:
        assert event["run_id"] == writer.run_id
        assert (event["L"], event["B"], event["mode"]) == (2, 2, "M1")
        assert event["emitted"] == event["accepted_prefix"] + 1
        assert event["first_token_reject"] is (event["accepted_prefix"] == 0)
        assert event["uniforms_proposal"] == 4
        assert event["psi_bytes"] == 2 * (5 * 8 + 13)
        assert 0 < event["overlap_mass"] < 1
    assert result.uniforms["proposal"] == 160


def test_events_of_alternatives(tmp_path: Path) -> None:
    settings = M1Settings(vocab_size=60, k=8, length=3, verifier="k_seq", steps=50)
    with RunWriter(tmp_path, "M1") as writer:
        result = run_m1(settings, Equipment(SeededUniforms(9), writer=writer))
    lines = (writer.directory / "tsd_metrics.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    # One payload serves all three drafts, and at most one of them is accepted.
    assert {event["psi_bytes"] for event in events} == {5 * 8 + 13}
    assert {event["accepted_prefix"] for event in events} == {0, 1}
    assert {event["emitted"] for event in events} == {1}
    assert result.acceptance_agrees
    assert result.overlap_mass < result.predicted_acceptance
    assert {event["overlap_mass"] < event["predicted_acceptance"] for event in events} == {True}


@pytest.mark.parametrize("length", [1, 3])
def test_every_prefix_of_a_block_stands_as_often_as_predicted(length: int) -> None:
    result = run(length=length, verifier="block", steps=2000)
    assert len(result.prefix_z) == length
    assert all(abs(z) < Z for z in result.prefix_z)
    # Of the first draft two predictions are right: given the context, and given the draft, too.
    assert result.predicted_acceptance == result.overlap_mass
    assert abs(result.accept_z) < Z
    assert run(length=2, steps=50).prefix_z == ()


def test_a_rule_that_keeps_too_many_is_noticed() -> None:
    """Blocks of which one draft more stands in one pass of five."""
    rng = np.random.default_rng(1)
    prefixes = np.sort(rng.random((5000, 3)))[:, ::-1]
    # At least i stand with probability P_i: one uniform for all of them.
    stood = (rng.random((5000, 1)) < prefixes).sum(axis=1)
    assert all(abs(z) < Z for z in prefix_z(stood.tolist(), prefixes.tolist()))
    more = np.minimum(stood + (rng.random(5000) < 0.2), 3)
    assert min(map(abs, prefix_z(more.tolist(), prefixes.tolist()))) > Z


def test_a_run_too_short_to_be_tested_says_so() -> None:
    assert run(steps=3).chi_square[1:] == (0, None, 0)


def test_sweep() -> None:
    base = M1Settings(steps=200, dense_seconds=0, contexts=4)
    results = list(
        sweep(
            base,
            lambda settings: Equipment(SeededUniforms(settings.seed)),
            vocab_sizes=(50,),
            ks=(4, 8),
            lengths=(1, 2),
            seeds=(1, 2),
        )
    )
    assert [(r.k, r.length, r.seed) for r in results] == [
        (k, length, seed) for k in (4, 8) for length in (1, 2) for seed in (1, 2)
    ]
    assert {r.mode for r in results} == {"M1"}
    (one,) = sweep(M0Settings(steps=10, dense_seconds=0), lambda _: Equipment(SeededUniforms(1)))
    assert (one.mode, one.vocab_size) == ("M0", 1000)
