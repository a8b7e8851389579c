# SPDX-License-Identifier: Apache-2.0
"""The gate: who passes, who fails, at which rates, and what passing is worth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from qr_sampler_tsd import HeadTailLaw, Psi, Role, SeededUniforms, UniformSource
from qr_sampler_tsd.errors import GateError
from qr_sampler_tsd.gate import GatedUnit, GateReport, require_gate, run_gate
from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.goodness_of_fit import chi_square, low_bits, repeats, sampling_floor, stretches
from qr_sampler_tsd.tsu import PBitGibbsTSU, PBitTreeTSU, SimTSU, TSUAdapter, TSUSamples

Probs = NDArray[np.float64]
Tokens = NDArray[np.int64]
Rule = Callable[[HeadTailLaw, Probs], Tokens]

DIGESTS = {
    "flat": "fd040ffd172a982c",
    "warm": "c6104742c4d2e83e",
    "cold": "abfc26ff5a505262",
    "v1": "c8d7cdd2872b93de",
    "v1_subnormal": "d8f7c5e84cc603c0",
    "excluded": "0d2f7481a5fe54a8",
    "single": "802813eb731ce8f1",
    "whole": "8b939367a1d95b53",
    "wide": "72c969d5b942b13e",
}


class Faulty(TSUAdapter):
    """A unit that turns uniforms into tokens by another rule."""

    name = "Faulty"

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def most_uniforms(self, cells: int) -> int:
        return 1

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> Tokens:
        return self._rule(law, uniforms.draw(batch_size, Role.PROPOSAL))


class Boastful(SimTSU):
    """Reports another log q."""

    def sample_categorical(self, psi: Psi, batch_size: int, uniforms: UniformSource) -> TSUSamples:
        samples = super().sample_categorical(psi, batch_size, uniforms)
        return TSUSamples(samples.tokens, samples.log_q + 1e-6)


def with_biased_top(factor: float) -> Rule:
    def rule(law: HeadTailLaw, u: Probs) -> Tokens:
        cells = law.cell_probs
        top = int(cells[:-1].argmax())
        others = 1 - cells[top]
        if others:
            cells *= (1 - factor * cells[top]) / others
            cells[top] = 1 - np.delete(cells, top).sum()
        return law.with_cells(cells).select(u)

    return rule


def failures(report: GateReport) -> str:
    assert not report.passed
    return str(report)


def test_golden_payloads_are_fixed() -> None:
    found = {
        name: hashlib.sha256(psi.to_bytes() + psi.excluded.astype("<i8").tobytes()).hexdigest()[:16]
        for name, psi in golden_payloads().items()
    }
    assert found == DIGESTS


def test_golden_payloads_are_what_they_are_said_to_be() -> None:
    laws = {name: psi.law() for name, psi in golden_payloads().items()}
    tops = {name: laws[name].head_probs.max() for name in ("flat", "warm", "cold")}
    assert tops == pytest.approx({"flat": 0.19, "warm": 0.43, "cold": 0.85}, abs=0.01)
    tails = {name: laws[name].tail_mass for name in ("flat", "warm", "cold")}
    assert tails == pytest.approx({"flat": 0.23, "warm": 0.05, "cold": 1e-5}, rel=1e-3)
    assert 0 < golden_payloads()["v1_subnormal"].epsilon < 2.0**-14
    assert laws["excluded"].ids.size < 60
    assert laws["excluded"].tail_count < laws["warm"].tail_count
    assert laws["single"].ids.size == 1
    assert (laws["whole"].tail_count, laws["wide"].tail_count) == (0, 2**31 - 4)


@pytest.mark.parametrize(
    "unit",
    [SimTSU(), PBitTreeTSU(), PBitTreeTSU(12), PBitGibbsTSU(9)],
    ids=lambda unit: unit.name,
)
def test_faithful_units_pass(unit: TSUAdapter) -> None:
    """False alarm 1e-9."""
    report = run_gate(unit, SeededUniforms(5), 60_000)
    assert report.passed, str(report)
    assert str(report) == f"gate of {unit.name}, 60000 draws per payload: passed"


@pytest.mark.heavy
def test_a_top_token_one_per_cent_too_frequent_fails() -> None:
    report = run_gate(Faulty(with_biased_top(1.01)), SeededUniforms(5))
    assert "cold: top: p = " in failures(report)
    assert run_gate(Faulty(with_biased_top(1.0)), SeededUniforms(5)).passed


@pytest.mark.heavy
def test_a_tail_of_float32_fails() -> None:
    def rule(law: HeadTailLaw, u: Probs) -> Tokens:
        return law.select(np.floor(u * 2**24) / 2**24)

    assert "wide: tail_repeats" in failures(run_gate(Faulty(rule), SeededUniforms(5)))


@pytest.mark.heavy
def test_a_stuck_bit_in_the_tail_fails() -> None:
    def rule(law: HeadTailLaw, u: Probs) -> Tokens:
        tokens = law.select(u)
        tail = ~np.isin(tokens, law.ids)
        tokens[tail] = law.tail_tokens(law.tail_ranks(tokens[tail]) & ~4)
        return tokens

    assert "flat: tail_low_bits" in failures(run_gate(Faulty(rule), SeededUniforms(5)))


@pytest.mark.heavy
def test_a_tail_that_favours_its_beginning_fails() -> None:
    def rule(law: HeadTailLaw, u: Probs) -> Tokens:
        tokens = law.select(u)
        tail = ~np.isin(tokens, law.ids)
        ranks = law.tail_ranks(tokens[tail])
        tokens[tail] = law.tail_tokens(
            (ranks * (0.9 + 0.1 * ranks / max(1, law.tail_count))).astype(int)
        )
        return tokens

    assert "flat: tail: p = " in failures(run_gate(Faulty(rule), SeededUniforms(5)))


@pytest.mark.heavy
def test_too_few_sweeps_fail() -> None:
    report = run_gate(PBitGibbsTSU(3, 1.0), SeededUniforms(5))
    assert "flat: cells" in failures(report)
    assert "total variation" in failures(run_gate(PBitGibbsTSU(1, 1.0), SeededUniforms(5), 20_000))


@pytest.mark.heavy
def test_a_coarse_converter_fails() -> None:
    assert "warm: cells" in failures(run_gate(PBitTreeTSU(8), SeededUniforms(5)))


@pytest.mark.parametrize("token", [-1, 2**40])
def test_tokens_outside_the_vocabulary_fail(token: int) -> None:
    def rule(law: HeadTailLaw, u: Probs) -> Tokens:
        return np.where(u < 0.001, token, law.select(u))

    report = run_gate(Faulty(rule), SeededUniforms(5), 20_000)
    assert f"draws of tokens without probability, such as {token}" in failures(report)


def test_an_excluded_token_fails_at_its_first_draw() -> None:
    psi = golden_payloads()["excluded"]
    unmasked = replace(psi, excluded=[]).law()

    def rule(law: HeadTailLaw, u: Probs) -> Tokens:
        tokens = law.select(u)
        tokens[0] = unmasked.ids[0]
        return tokens

    report = run_gate(Faulty(rule), SeededUniforms(5), 10_000, payloads={"excluded": psi})
    assert "1 draws of tokens without probability" in failures(report)


def test_a_unit_that_always_fails_to_be_possible_gets_a_report() -> None:
    report = run_gate(Faulty(lambda law, u: np.full(u.size, -1)), SeededUniforms(1), 100)
    assert "100 draws of tokens without probability" in failures(report)


def test_another_log_q_fails() -> None:
    report = run_gate(Boastful(), SeededUniforms(5), 2_000)
    assert "log_q is not that of F(psi)" in failures(report)


@pytest.mark.heavy
def test_the_chi_square_statistic_has_its_law() -> None:
    """10,000 exact samples: the share of p < .01 by a binomial test, false alarm 1e-9."""
    probs = golden_payloads()["flat"].law().cell_probs
    samples = np.random.default_rng(4).multinomial(3_000, probs, size=10_000)
    small = sum(chi_square(counts, probs) < 0.01 for counts in samples)
    assert stats.binomtest(small, 10_000, 0.01).pvalue > 1e-9
    assert stats.binomtest(2 * small, 10_000, 0.01).pvalue < 1e-9


def test_small_cells_are_merged() -> None:
    probs = np.array([0.5, 0.49, 0.004, 0.003, 0.003])
    counts = np.array([520, 470, 10, 0, 0])
    expected = stats.chisquare([520, 480], [500, 500]).pvalue
    assert (
        chi_square(counts, probs)
        == pytest.approx(stats.chisquare([520, 470 + 10], [500, 490 + 10]).pvalue)
        == pytest.approx(expected)
    )
    assert chi_square(np.array([3, 2]), np.array([0.5, 0.5])) == 1.0


@given(st.integers(2, 2_000), st.integers(0, 3_000), st.integers(0, 100))
def test_tail_tests_count_what_they_say(tail_count: int, hits: int, seed: int) -> None:
    ranks = np.random.default_rng(seed).integers(0, tail_count, hits)
    groups = min(64, tail_count, hits // 25)
    if groups < 2:
        assert stretches(ranks, tail_count) == low_bits(ranks, tail_count) == 1.0
        return
    every = np.arange(tail_count)
    by_stretch = [every * groups // tail_count == group for group in range(groups)]
    sizes = np.array([rows.sum() for rows in by_stretch])
    counts = np.array([by_stretch[group][ranks].sum() for group in range(groups)])
    assert stretches(ranks, tail_count) == pytest.approx(chi_square(counts, sizes / tail_count))
    modulus = 2 ** int(np.log2(groups))
    counts = np.array([(ranks % modulus == rest).sum() for rest in range(modulus)])
    sizes = np.array([(every % modulus == rest).sum() for rest in range(modulus)])
    assert low_bits(ranks, tail_count) == pytest.approx(chi_square(counts, sizes / tail_count))


def test_repeats_are_bounded_by_the_birthday_law() -> None:
    """40 draws of 1,000: the exact distribution of the number of different tokens, by recursion."""
    different = np.zeros(41)
    different[0] = 1.0
    for _ in range(40):
        old = np.arange(41) / 1_000
        new = different * (1 - old)
        different = different * old + np.append(0.0, new[:-1])
    for count in range(3, 9):
        exact = different[: 40 - count + 1].sum()
        ranks = np.append(np.arange(40 - count), np.zeros(count, dtype=np.int64))
        assert exact <= repeats(ranks, 1_000) < 10 * exact
    assert repeats(np.arange(40), 1_000) == 1.0
    assert repeats(np.arange(0), 0) == 1.0


def test_the_sampling_floor_is_above_the_mean_by_the_stated_term() -> None:
    """The exact mean of |X / N - p| for each cell, from the binomial distribution."""
    probs, samples, exceeded = np.array([0.7, 0.25, 0.05]), 400, 1e-6
    numbers = np.arange(samples + 1)
    mean = 0.5 * sum(
        float((np.abs(numbers / samples - p) * stats.binom.pmf(numbers, samples, p)).sum())
        for p in probs
    )
    term = np.sqrt(np.log(1 / exceeded) / (2 * samples))
    assert mean + term < sampling_floor(probs, samples, exceeded) < 1.3 * mean + term


def test_rates_and_bounds_are_shared_and_reported() -> None:
    psi = golden_payloads()["v1"]
    report = run_gate(
        SimTSU(), SeededUniforms(1), 1_000, payloads={"one": psi, "two": psi}, false_alarm=1e-3
    )
    assert [result.payload for result in report.results] == ["one", "two"]
    for result in report.results:
        assert result.least_p_value == pytest.approx(1e-3 / 12)
        assert result.total_variation < result.sampling_floor
        assert result.allowance == 1e-3
        assert set(result.p_values) == {"cells", "top", "tail", "tail_low_bits", "tail_repeats"}


@pytest.mark.parametrize(
    "change",
    [{"samples": 0}, {"allowance": -1.0}, {"false_alarm": 0.0}, {"false_alarm": 1.0}],
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=f"{name}={change[name]}"):
        run_gate(SimTSU(), SeededUniforms(1), **change)


def test_a_unit_that_passes_may_be_used() -> None:
    gated = require_gate(SimTSU(), SeededUniforms(1), 2_000)
    psi = golden_payloads()["v1"]
    ours = gated.sample_categorical(psi, 20, SeededUniforms(2))
    due = SimTSU().sample_categorical(psi, 20, SeededUniforms(2))
    assert ours.tokens.tolist() == due.tokens.tolist()
    assert gated.draw_tokens(psi.law(), 20, SeededUniforms(2)).tolist() == due.tokens.tolist()
    assert gated.name == "SimTSU"
    assert gated.report.passed
    law = gated.law(psi)
    assert law is not None
    assert law.probs().tolist() == psi.law().probs().tolist()
    assert Faulty(with_biased_top(1.0)).law(psi) is None


def test_a_unit_that_fails_may_not() -> None:
    with pytest.raises(GateError, match="gate of Faulty, 20000 draws per payload: failed: "):
        require_gate(Faulty(with_biased_top(1.2)), SeededUniforms(1), 20_000)


def test_a_report_of_another_unit_does_not_count() -> None:
    report = run_gate(SimTSU(), SeededUniforms(1), 500)
    with pytest.raises(GateError, match="the report is of SimTSU, the unit is PBitTreeTSU"):
        GatedUnit(PBitTreeTSU(), report)


def output_law(p: Probs, device: Probs, acceptance: Probs, residual: Probs) -> Probs:
    """What a verifier emits for proposals of *device*, by enumeration.

    A proposal x is accepted with alpha(x) = min(1, p(x) / q(x)), 1 where q(x) = 0, and is replaced
    by a draw from r ~ (p - q)+ otherwise; *acceptance* and *residual* are the q of one and the
    other.
    """
    masses = np.maximum(p - residual, 0)
    masses = masses / masses.sum() if masses.sum() else p
    emitted = np.zeros(p.size)
    for x in range(p.size):
        alpha = min(1.0, p[x] / acceptance[x]) if acceptance[x] else 1.0
        emitted[x] += device[x] * alpha
        emitted += device[x] * (1 - alpha) * masses
    return emitted


def variation(one: Probs, other: Probs) -> float:
    return 0.5 * float(np.abs(one - other).sum())


LAWS = st.lists(st.integers(0, 50), min_size=6, max_size=6).filter(any)


@given(LAWS, LAWS, LAWS)
def test_the_output_is_no_farther_off_than_the_device(
    target: list[int], proposal: list[int], device: list[int]
) -> None:
    p, q, real = (np.array(law) / sum(law) for law in (target, proposal, device))
    assert variation(output_law(p, q, q, q), p) < 1e-12
    assert variation(output_law(p, real, q, q), p) <= variation(real, q) + 1e-12
    assert variation(output_law(p, real, real, q), p) <= variation(real, q) + 1e-12


def test_a_skewed_device_is_exact_only_with_its_own_law_in_both_places() -> None:
    p = np.array([0.5, 0.3, 0.2, 0.0])
    q = np.array([0.25, 0.25, 0.25, 0.25])
    device = np.array([0.30, 0.17, 0.28, 0.25])
    assert variation(output_law(p, device, device, device), p) < 1e-15
    assert variation(device, q) == pytest.approx(0.08)
    assert 0.01 < variation(output_law(p, device, q, q), p) <= 0.08
    assert 0.01 < variation(output_law(p, device, device, q), p) <= 0.08
